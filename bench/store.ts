/**
 * Measures what a thin, copy-on-write store adds to a plain file: first touches of objects, the weight of snapshots, and
 * managing VDIs. Each row is compared with the same store, in the same run, without what is measured: so results are
 * ratios, which mean the same on a fast machine and on a slow one. It starts Collie by itself, as it is built.
 *
 * Usage: npm run build && tsx bench/store.ts [--parts touch,snapshots,manage] [--runs 3] [--seconds 3] [--objects 16384]
 *                                            [--rounds 60] [--json] [--help]
 *
 * - touch: 4 KiB writes at depth 1 through NBD, each into the next object of 4 MiB: one that is not there yet, and one that
 *   a snapshot has just frozen; against random writes at depth 1 into objects that are there, on the same VDI.
 * - snapshots: random 4 KiB writes at depth 16 into a VDI with 100 snapshots, against one with none.
 * - manage: create, snapshot, clone and delete through the VDI client: an empty 1 TiB VDI and one with a full map, against
 *   an empty 1 GiB one.
 *
 * `--objects` bounds two things: how many objects a run touches, and how many of 4 MiB a "full" map has. The default is
 * 64 GiB, 4 times as many objects as the store keeps loaded. `--seconds` bounds each run of writes, `--runs` counts these runs
 * and `--rounds` the repetitions of managing. Rounds alternate and medians are printed.
 */
import type { VdiClient } from '../src/vdi/client.ts'
import type { Device } from '../src/vdi/device.ts'
import { type CollieUnderTest, fill, startCollie } from './collie-target.ts'
import { fio, median } from './fio.ts'
import { readOptions } from './options.ts'

const options = readOptions(import.meta.filename, {
  parts: ['touch', 'snapshots', 'manage'],
  runs: 3,
  seconds: 3,
  objects: 16_384,
  rounds: 60,
})
const RUNS = options.runs
const ROUNDS = options.rounds
const OBJECTS = options.objects

const MIB = 1024 * 1024
const GIB = 1024 * MIB
const TIB = 1024 * GIB
const OBJECT_BYTES = 4 * MIB
const BLOCK_BYTES = 4096
/** What random writes go to. */
const STEADY_BYTES = 256 * MIB
const SNAPSHOTS = 100
/** Objects that change between two of these snapshots. */
const CHANGED_PER_SNAPSHOT = 8
/** Of a block in each object of a full map, so many are under way together. */
const FILL_DEPTH = 16
/** A VDI with a full map is filled for each of its deletions, which are thus fewer. */
const FULL_DELETIONS_MAX = 3

/** What is done to VDIs, in this order. */
const OPERATIONS = ['create', 'snapshot', 'clone', 'delete the clone', 'delete the snapshot', 'delete'] as const
type Operation = (typeof OPERATIONS)[number]

/** What must hold of a ratio, and what is aimed at: of rates at least, of times at most. */
interface Bound {
  asked: number
  aim: number
}

interface Row extends Bound {
  metric: string
  unit: '/s' | 'ms'
  measured: number
  reference: number
  ratio: number
  /** The same ratio of the original Sheepdog, where it has been measured. */
  original: string
}

const PARTS: Record<string, (collie: CollieUnderTest) => Promise<Row[]>> = { touch, snapshots, manage }

const rows: Row[] = []
for (const part of options.parts) rows.push(...(await onCollie(part)))
if (options.json) console.log(JSON.stringify(rows, null, 2))
else printTable(rows)

/** Each part has a store of its own, so that none finds what another has left. */
async function onCollie(part: string): Promise<Row[]> {
  const measure = PARTS[part]
  if (!measure) throw new Error(`"${part}" is none of ${Object.keys(PARTS).join(', ')}`)
  const collie = await startCollie()
  try {
    return await measure(collie)
  } finally {
    await collie.stop()
  }
}

/** One VDI in three regions: objects for steady writes, objects that snapshots freeze, and nothing yet. */
async function touch({ vdis, exportVid }: CollieUnderTest): Promise<Row[]> {
  const regionBytes = OBJECTS * OBJECT_BYTES
  const frozenAt = STEADY_BYTES
  const newAt = frozenAt + regionBytes
  let vid = await vdis.create('touch', newAt + RUNS * regionBytes)
  const uri = await exportVid(vid)
  await touchObjects(uri, frozenAt, '64k')
  const rates = { fresh: [] as number[], frozen: [] as number[], steady: [] as number[] }
  const steady = async () => {
    await fio(uri, '--rw=write', '--bs=1m', '--iodepth=4', `--size=${STEADY_BYTES}`)
    rates.steady.push(await randomWrites(uri, 1))
  }
  // What a run of touches leaves to the checkpoint weighs on the next run: it is a steady one each time.
  await steady()
  for (let run = 0; run < RUNS; run++) {
    rates.fresh.push(await touchObjects(uri, newAt + run * regionBytes, '4k'))
    await steady()
    vid = await vdis.snapshot(vid, `run ${run}`)
    rates.frozen.push(await touchObjects(uri, frozenAt, '4k'))
    await steady()
  }
  const bound = { asked: 0.3, aim: 0.8 }
  const original = '0.04 (-n: 0.42)'
  return [
    row('first touch of new objects, depth 1', '/s', rates.fresh, rates.steady, bound, original),
    row('first touch after a snapshot, depth 1', '/s', rates.frozen, rates.steady, bound),
  ]
}

/** Writes at the start of each object of a region, one after the other, until time is up; returns how many per second. */
async function touchObjects(uri: string, offset: number, size: '4k' | '64k'): Promise<number> {
  const bytes = Number.parseInt(size, 10) * 1024
  const { write } = await fio(
    uri,
    `--rw=write:${OBJECT_BYTES - bytes}`,
    `--bs=${bytes}`,
    '--iodepth=1',
    `--offset=${offset}`,
    `--size=${OBJECTS * OBJECT_BYTES}`,
    `--io_size=${OBJECTS * bytes}`,
    ...(size === '4k' ? [`--runtime=${options.seconds}`] : []),
  )
  return write.iops
}

async function randomWrites(uri: string, depth: number): Promise<number> {
  const { write } = await fio(
    uri,
    '--rw=randwrite',
    '--bs=4k',
    `--iodepth=${depth}`,
    `--size=${STEADY_BYTES}`,
    `--runtime=${options.seconds}`,
    '--time_based',
    '--randrepeat=0',
    '--norandommap',
  )
  return write.iops
}

async function snapshots({ vdis, exportVid }: CollieUnderTest): Promise<Row[]> {
  const none = await exportVid(await vdis.create('none', STEADY_BYTES))
  let vid = await vdis.create('many', STEADY_BYTES)
  const device = await vdis.open(vid, { readOnly: false })
  const objects = STEADY_BYTES / OBJECT_BYTES
  for (let taken = 0; taken < SNAPSHOTS; taken++) {
    const first = taken * CHANGED_PER_SNAPSHOT
    await writeBlocks(device, CHANGED_PER_SNAPSHOT, (index) => ((first + index) % objects) * OBJECT_BYTES)
    vid = await vdis.snapshot(vid, `snapshot ${taken}`)
  }
  await device.close()
  const many = await exportVid(vid)
  await fill(none)
  await fill(many)
  const rates = { none: [] as number[], many: [] as number[] }
  for (let run = 0; run < RUNS; run++) {
    rates.none.push(await randomWrites(none, 16))
    rates.many.push(await randomWrites(many, 16))
  }
  const metric = `random write, depth 16, with ${SNAPSHOTS} snapshots`
  return [row(metric, '/s', rates.many, rates.none, { asked: 0.9, aim: 1 })]
}

/** Milliseconds that each repetition of an operation took. */
type Timings = Record<Operation, number[]>

function newTimings(): Timings {
  return { create: [], snapshot: [], clone: [], 'delete the clone': [], 'delete the snapshot': [], delete: [] }
}

async function timed<T>(timings: Timings, operation: Operation, run: () => Promise<T>): Promise<T> {
  const startMs = performance.now()
  const result = await run()
  timings[operation].push(performance.now() - startMs)
  return result
}

async function manage({ vdis }: CollieUnderTest): Promise<Row[]> {
  const empty = { small: newTimings(), large: newTimings() }
  const full = newTimings()
  const fullDeletions = Math.min(FULL_DELETIONS_MAX, ROUNDS)
  let round = 0
  for (let filled = 0; filled < fullDeletions; filled++) {
    let fullVid = await vdis.create('full', TIB)
    await fillMap(vdis, fullVid)
    for (; round < Math.floor((ROUNDS * (filled + 1)) / fullDeletions); round++) {
      // What one has just deleted is reclaimed beside the next: each follows each other as often.
      if (round % 2 === 0) await manageEmpty(vdis, GIB, empty.small)
      await manageEmpty(vdis, TIB, empty.large)
      if (round % 2 === 1) await manageEmpty(vdis, GIB, empty.small)
      fullVid = await copyAndForget(vdis, 'full', fullVid, TIB, full)
    }
    await timed(full, 'delete', () => vdis.remove('full'))
  }
  const objects = `${OBJECTS} objects`
  return OPERATIONS.flatMap((operation) => {
    const reference = empty.small[operation]
    const rows = [row(`${operation}, empty 1 TiB`, 'ms', empty.large[operation], reference, { asked: 1.5, aim: 1.1 })]
    const measured = full[operation]
    if (measured.length > 0)
      rows.push(row(`${operation}, ${objects}`, 'ms', measured, reference, { asked: 10, aim: 3 }))
    return rows
  })
}

async function manageEmpty(vdis: VdiClient, sizeBytes: number, timings: Timings): Promise<void> {
  const vid = await timed(timings, 'create', () => vdis.create('empty', sizeBytes))
  await copyAndForget(vdis, 'empty', vid, sizeBytes, timings)
  await timed(timings, 'delete', () => vdis.remove('empty'))
}

/** Makes a snapshot and a clone of it, and deletes both; returns the vid under which the VDI goes on. */
async function copyAndForget(
  vdis: VdiClient,
  name: string,
  vid: number,
  sizeBytes: number,
  timings: Timings,
): Promise<number> {
  const nextVid = await timed(timings, 'snapshot', () => vdis.snapshot(vid, 'tag'))
  await timed(timings, 'clone', () => vdis.create('clone', sizeBytes, vid))
  await timed(timings, 'delete the clone', () => vdis.remove('clone'))
  await timed(timings, 'delete the snapshot', () => vdis.remove(name, 'tag'))
  return nextVid
}

async function fillMap(vdis: VdiClient, vid: number): Promise<void> {
  const device = await vdis.open(vid, { readOnly: false })
  await writeBlocks(device, OBJECTS, (index) => index * OBJECT_BYTES)
  await device.close()
}

/** Writes a block at each of `count` places, some at a time. */
async function writeBlocks(device: Device, count: number, offsetOf: (index: number) => number): Promise<void> {
  const block = Buffer.alloc(BLOCK_BYTES, 0xa5)
  let next = 0
  const writer = async () => {
    while (next < count) {
      const offset = offsetOf(next++)
      await new Promise<void>((resolve, reject) => {
        device.write(offset, block, { fua: false }, (error) => (error ? reject(error) : resolve()))
      })
    }
  }
  await Promise.all(Array.from({ length: FILL_DEPTH }, writer))
}

function row(
  metric: string,
  unit: Row['unit'],
  measuredRuns: readonly number[],
  referenceRuns: readonly number[],
  bound: Bound,
  original = '',
): Row {
  const measured = median(measuredRuns)
  const reference = median(referenceRuns)
  return { metric, unit, measured, reference, ratio: measured / reference, ...bound, original }
}

function printTable(rows: readonly Row[]): void {
  const width = Math.max(...rows.map(({ metric }) => metric.length))
  console.log(`${''.padEnd(width)}   measured  reference  ratio     asked    aim`)
  for (const { metric, unit, measured, reference, ratio, asked, aim, original } of rows) {
    const sign = unit === '/s' ? '>=' : '<='
    const missed = unit === '/s' ? ratio < asked : ratio > asked
    const cells = [
      format(measured).padStart(11),
      format(reference).padStart(11),
      ratio.toFixed(2).padStart(7),
      `${sign} ${asked}`.padStart(10),
      String(aim).padStart(7),
    ]
    const notes = [missed ? 'MISSED' : '', original ? `the original: ${original}` : ''].filter(Boolean)
    console.log([`${metric.padEnd(width)}${cells.join('')} ${unit.padEnd(2)}`, ...notes].join('  '))
  }
}

/** Three digits that count. */
function format(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3)
}
