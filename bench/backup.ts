/**
 * Measures backups to a directory: how fast a volume is copied and brought back, beside how fast it is read and written over NBD in the
 * same run, and what an incremental backup costs by what has changed. It starts Collie by itself, as it is built.
 *
 * Usage: npm run build && tsx bench/backup.ts [--runs 3] [--mib 512] [--json] [--help]
 *
 * - backup, restore: MB/s from the request until it is done, against a pass of 1 MiB sequential reads or writes (with a flush at
 *   its end) over the same volume; of bytes that do not get smaller, and of such that LZ4 halves.
 * - incremental: seconds when nothing has changed, when a hundredth of the 4 MiB chunks has, and when a half has, against the whole backup.
 * - scattered: 64 KiB in each of 1400 chunks, against as many bytes that lie together.
 *
 * The directory is in memory where that has room, so that what is measured is Collie and not another disk. That memory is filled and given back
 * before each backup: memory that a virtual machine has not used before comes at 200 MB/s on some hosts. What is read comes out of the page cache on
 * both sides. Runs begin with a new volume each, and medians are printed.
 */
import { closeSync, openSync, rmSync, writeSync } from 'node:fs'
import { CinderApi } from '../test/tools/cinder-api.ts'
import { Collie } from '../test/tools/collie.ts'
import { scratchDirectory } from '../test/tools/scratch.ts'
import { fio, median } from './fio.ts'
import { readOptions } from './options.ts'

const options = readOptions(import.meta.filename, { runs: 3, mib: 512 })
const RUNS = options.runs
const MIB = 1024 * 1024
const BYTES = options.mib * MIB
const CHUNK_BYTES = 4 * MIB
const SCATTERED = 1400
const PIECE_BYTES = 64 * 1024
/** How much of what is written gets smaller. */
const CONTENTS = { random: 0, halved: 50 }

interface Row {
  metric: string
  unit: 'MB/s' | 's'
  measured: number
  reference: number
  ratio: number
  /** Of rates at least, of times at most. */
  asked: number | null
}

async function measureAll(): Promise<Row[]> {
  const directory = scratchDirectory('collie-backups-')
  const collie = await Collie.create('--journal-size-mib=128', `--backup-directory=${directory}`)
  try {
    await collie.start()
    const bench = new Bench(new CinderApi(`${collie.dataDir}/openrc`), `${directory}/used-before`)
    const found = new Map<string, { row: Omit<Row, 'measured' | 'reference' | 'ratio'>; values: [number, number][] }>()
    const note = (row: Omit<Row, 'measured' | 'reference' | 'ratio'>, measured: number, reference: number) => {
      const entry = found.get(row.metric) ?? { row, values: [] }
      entry.values.push([measured, reference])
      found.set(row.metric, entry)
    }
    for (let run = 0; run < RUNS; run++) {
      for (const [content, percentage] of Object.entries(CONTENTS)) await copies(bench, content, percentage, note)
      await scattered(bench, note)
      rmSync(`${directory}/volumebackups`, { recursive: true, force: true })
    }
    return [...found.values()].map(({ row, values }) => ({
      ...row,
      measured: median(values.map(([measured]) => measured)),
      reference: median(values.map(([, reference]) => reference)),
      ratio: median(values.map(([measured, reference]) => measured / reference)),
    }))
  } catch (error) {
    console.error(collie.tailOfLog())
    throw error
  } finally {
    await collie.dispose()
    rmSync(directory, { recursive: true })
  }
}

type Note = (row: Omit<Row, 'measured' | 'reference' | 'ratio'>, measured: number, reference: number) => void

async function copies(bench: Bench, content: string, percentage: number, note: Note): Promise<void> {
  const sizeGib = Math.ceil(BYTES / 1024 ** 3)
  const volume = await bench.volume(sizeGib)
  const pass = [
    `--size=${BYTES}`,
    '--bs=1m',
    '--iodepth=4',
    '--refill_buffers',
    `--buffer_compress_percentage=${percentage}`,
  ]
  const rates = await bench.attached(volume, async (uri) => ({
    write: (await fio(uri, '--rw=write', '--end_fsync=1', ...pass)).write.bw_bytes / 1e6,
    read: (await fio(uri, '--rw=read', ...pass)).read.bw_bytes / 1e6,
  }))
  const [backup, wholeSeconds] = await bench.backUp(volume)
  note({ metric: `backup, ${content}`, unit: 'MB/s', asked: 0.5 }, BYTES / 1e6 / wholeSeconds, rates.read)
  const empty = await bench.volume(sizeGib)
  const restoreSeconds = await bench.restore(backup, empty)
  note({ metric: `restore, ${content}`, unit: 'MB/s', asked: 0.5 }, BYTES / 1e6 / restoreSeconds, rates.write)
  if (percentage === 0) {
    const chunks = BYTES / CHUNK_BYTES
    for (const [name, changed] of [
      ['nothing', 0],
      ['a hundredth', Math.ceil(chunks / 100)],
      ['a half', chunks / 2],
    ] as const) {
      if (changed > 0) await bench.touch(volume, changed, 4096)
      const [, seconds] = await bench.backUp(volume, true)
      note({ metric: `incremental, ${name} changed`, unit: 's', asked: null }, seconds, wholeSeconds)
    }
  }
}

async function scattered(bench: Bench, note: Note): Promise<void> {
  const wide = await bench.volume(Math.ceil((SCATTERED * CHUNK_BYTES) / 1024 ** 3))
  await bench.touch(wide, SCATTERED, PIECE_BYTES)
  const dense = await bench.volume(1)
  await bench.attached(dense, (uri) =>
    fio(uri, '--rw=write', '--bs=1m', `--size=${Math.ceil((SCATTERED * PIECE_BYTES) / MIB)}m`),
  )
  const [, denseSeconds] = await bench.backUp(dense)
  const [, wideSeconds] = await bench.backUp(wide)
  note({ metric: `${SCATTERED} chunks of 64 KiB`, unit: 's', asked: null }, wideSeconds, denseSeconds)
}

/** Volumes and backups of one Collie. */
class Bench {
  readonly #api: CinderApi
  readonly #fillerPath: string

  constructor(api: CinderApi, fillerPath: string) {
    this.#api = api
    this.#fillerPath = fillerPath
  }

  async volume(sizeGib: number): Promise<string> {
    const id = await this.#api.createVolume({ size: sizeGib })
    await this.#api.until('volume', id, 'available')
    return id
  }

  async attached<T>(volume: string, use: (uri: string) => Promise<T>): Promise<T> {
    const { id, uri } = await this.#api.attach(volume)
    try {
      return await use(uri)
    } finally {
      await this.#api.detach(id)
      await this.#api.until('volume', volume, 'available')
    }
  }

  /** Writes to the beginning of so many chunks, one after the other. */
  async touch(volume: string, chunks: number, bytes: number): Promise<void> {
    const skip = `--rw=write:${(CHUNK_BYTES - bytes) / 1024}k`
    await this.attached(volume, (uri) =>
      fio(uri, skip, `--bs=${bytes}`, `--io_size=${chunks * bytes}`, `--size=${chunks * CHUNK_BYTES}`),
    )
  }

  /** Answers its id, and the seconds that it took. */
  async backUp(volume: string, incremental = false): Promise<[string, number]> {
    if (!incremental) this.#useMemory()
    const started = performance.now()
    const body = { backup: { volume_id: volume, incremental } }
    const { backup } = await this.#api.request<{ backup: { id: string } }>('POST', '/backups', body)
    await this.#api.until('backup', backup.id, 'available')
    return [backup.id, (performance.now() - started) / 1000]
  }

  /** As much as a whole backup takes. */
  #useMemory(): void {
    const chunk = Buffer.alloc(CHUNK_BYTES, 1)
    const file = openSync(this.#fillerPath, 'w')
    for (let at = 0; at < BYTES; at += CHUNK_BYTES) writeSync(file, chunk, 0, CHUNK_BYTES, at)
    closeSync(file)
    rmSync(this.#fillerPath)
  }

  async restore(backup: string, volume: string): Promise<number> {
    const started = performance.now()
    await this.#api.request('POST', `/backups/${backup}/restore`, { restore: { volume_id: volume } })
    await this.#api.until('backup', backup, 'available')
    return (performance.now() - started) / 1000
  }
}

const rows = await measureAll()
if (options.json) console.log(JSON.stringify(rows, null, 2))
else
  for (const { metric, unit, measured, reference, ratio, asked } of rows) {
    const wanted = asked === null ? '' : `asked ${asked}`
    console.log(
      `${metric.padEnd(36)} ${measured.toFixed(2).padStart(9)} ${unit.padEnd(4)} reference ${reference.toFixed(2).padStart(9)}  ratio ${ratio.toFixed(2)}  ${wanted}`,
    )
  }
