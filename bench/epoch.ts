/**
 * What a new view costs one node of a hundred that has 100,000 objects: processor time, and the longest time for which its event loop
 * did nothing else. The node's own parts are real, on a store in a temporary directory; the other nodes are answers made here.
 *
 * Usage: npx tsx bench/epoch.ts [--objects 100000] [--nodes 100] [--vnodes 512] [--json] [--help]
 *
 * One node has gone, and the view says that its places are given up: three in a hundred objects get another copy elsewhere.
 *
 * - `places`: the view takes effect, and it is asked once where an object belongs;
 * - `owner`: of the VDIs that the node owns, a hundredth of all, every object is looked at, and asked for at three nodes: thousands
 *   together, and those that lack a copy once more by themselves;
 * - `holder`: it says what it has of each of its objects, as their owners ask;
 * - `cleaner`: all is where it belongs, and it looks through its objects for what it need not have any more.
 *
 * Of the copying itself nothing is in it, nor of the packets; links.ts measures what a request costs.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { vidOfName } from '../src/protocol/hash.ts'
import { dataOid, oidIndex, oidVid } from '../src/protocol/oid.ts'
import { systemClock } from '../src/runtime/clock.ts'
import { createLog } from '../src/runtime/log.ts'
import { systemRandom } from '../src/runtime/random.ts'
import { openSystemDisk } from '../src/runtime/system-disk.ts'
import { ClusterState } from '../src/sheep/cluster-state.ts'
import { CopyCleaner } from '../src/sheep/clustered/copy-cleaner.ts'
import { Places } from '../src/sheep/clustered/places.ts'
import { Recovery } from '../src/sheep/clustered/recovery.ts'
import { VdiCopies } from '../src/sheep/clustered/vdi-copies.ts'
import { ALL_BLOCKS } from '../src/sheep/copies/block-ranges.ts'
import { CopyHolder } from '../src/sheep/copies/copy-holder.ts'
import { bringHome } from '../src/sheep/copies/copy-recovery.ts'
import { CopySequencer } from '../src/sheep/copies/copy-sequencer.ts'
import { EngineCopyStore } from '../src/sheep/copies/engine-copy-store.ts'
import type { CopyAnswer, CopyRequest } from '../src/sheep/copies/messages.ts'
import { cleanVersion } from '../src/sheep/copies/version.ts'
import { VersionArray } from '../src/sheep/copies/version-array.ts'
import type { Entry, Vdi } from '../src/sheep/entries.ts'
import type { Member, View } from '../src/sheep/membership/view.ts'
import { BLOCK_BYTES } from '../src/sheep/object-format.ts'
import { ObjectStore } from '../src/sheep/object-store.ts'
import { readOptions } from './options.ts'

const options = readOptions(import.meta.filename, { objects: 100_000, nodes: 100, vnodes: 512 })

const COPIES = 3
const FAMILY = vidOfName('vdi 0')
/** An owner asks for the objects of so many indexes of its VDI together, and for so many that lack something, about. */
const LOOKED_AT_TOGETHER = 4096
const OPENED_AT_ONCE = 16
const MADE_AT_ONCE = 256
const SEGMENT_BYTES = 64 << 20
const GENERATION = { epoch: 3, index: 1000, incarnation: 'other' }
const { nodes } = options

interface Cost {
  part: string
  cpuMs: number
  stallMs: number
}

const memberOf = (at: number): Member => ({
  node: `node${at}`,
  incarnation: `${at}`,
  address: `10.0.${at >> 8}.${at & 255}:7000`,
  zone: at + 1,
  vnodes: options.vnodes,
})
const all = Array.from({ length: nodes }, (_, at) => memberOf(at))
const gone = all.at(-1)!
const SELF = all[0]!

const viewOf = (epoch: number, members: readonly Member[], away: readonly Member[] = []): View => ({
  epoch,
  members,
  voters: [],
  at: 0,
  ...(away.length > 0 && { away }),
})

function vdiOf(at: number, objects: number): Vdi {
  const name = `vdi ${at}`
  const vid = vidOfName(name)
  return {
    vid,
    name,
    tag: '',
    snapId: 1,
    parentVid: 0,
    family: vid,
    sizeBytes: objects * 1024 * BLOCK_BYTES,
    copies: COPIES,
    createdAt: 1,
    snapshotAt: 0,
    deleting: false,
  } as Vdi
}

class EpochBench {
  readonly #state = new ClusterState()
  readonly #places = new Places()
  readonly #copies = new VdiCopies(this.#state)
  #index = 0
  readonly costs: Cost[] = []

  apply(entry: Entry): void {
    this.#state.apply(++this.#index, entry)
  }

  async run(directory: string): Promise<void> {
    // Each node owns as many VDIs as it has neighbours, of as many objects.
    const objects = Math.ceil(options.objects / COPIES)
    this.apply({ type: 'view', ...viewOf(1, all) })
    const vdis = all.map((_, at) => vdiOf(at, objects))
    for (const [at, vdi] of vdis.entries()) {
      this.apply({ type: 'vdi', vdi })
      const { node, incarnation } = all[at]!
      this.apply({ type: 'owner', family: vdi.vid, replaces: null, node, incarnation })
    }
    const here = vdis.flatMap(({ vid }) =>
      Array.from({ length: objects }, (_, index) => dataOid(vid, index)).filter((oid) => this.#isTarget(oid)),
    )
    const made = await openStore(directory)
    await makeObjects(made, here)
    await made.close() // or its journal would be at work yet
    const store = await openStore(directory)
    const holder = new CopyHolder(new EngineCopyStore(store))
    const cleaner = new CopyCleaner({
      state: this.#state,
      store: new EngineCopyStore(store),
      holder,
      places: this.#places,
      clock: systemClock,
      node: SELF.node,
      copies: this.#copies,
      catchUp: async () => true,
      failed: (error) => {
        throw error
      },
    })
    this.apply({ type: 'view', ...viewOf(2, all.slice(0, -1), [gone]) })
    this.#isTarget(here[0]!)
    await this.#measure('places', async () => {
      this.apply({ type: 'view', ...viewOf(3, all.slice(0, -1)) })
      this.#isTarget(here[0]!)
    })
    holder.viewChanged(3)
    const isCopyOn = this.#copiesBefore(objects)
    const changed = here.filter((oid) => this.#isChanged(oid))
    const questions = [
      ...parts(here, (oid) => Math.floor(oidIndex(oid) / LOOKED_AT_TOGETHER)).map(questionOf('look')),
      ...parts(changed, (_oid, at) => Math.floor(at / OPENED_AT_ONCE)).map(questionOf('open')),
    ]
    await this.#measure('owner', () => this.#lookAtOwn(holder, objects, isCopyOn))
    await this.#measure('holder', () => answerAll(holder, questions))
    for (const { vid } of vdis) {
      const { index } = this.#state.families.ownerOf(vid)!
      this.apply({ type: 'clean', epoch: 3, families: [[vid, index]] })
    }
    await this.#measure('cleaner', async () => {
      cleaner.applied({ type: 'clean', epoch: 3, families: [] })
      await cleaner.settled
    })
    await store.close()
  }

  #isTarget(oid: bigint): boolean {
    return this.#targetsIn(this.#state.view, oid).includes(SELF.node)
  }

  #targetsIn(view: View, oid: bigint): readonly string[] {
    return this.#places.targetsOf(oid, this.#copies.in(oidVid(oid), view), view)
  }

  /** Which node had a copy of an object of the node's own VDI, looked up before anything is measured. */
  #copiesBefore(objects: number): (node: string, oid: bigint) => boolean {
    const before = this.#state.viewsOf(FAMILY)[0]!
    const oidsOn = new Map(all.map(({ node }) => [node, new Set<bigint>()]))
    for (let index = 0; index < objects; index++) {
      const oid = dataOid(FAMILY, index)
      for (const node of this.#targetsIn(before, oid)) oidsOn.get(node)!.add(oid)
    }
    return (node, oid) => oidsOn.get(node)!.has(oid)
  }

  /** Whether the object belongs on a node that does not have it. */
  #isChanged(oid: bigint): boolean {
    const before = this.#targetsIn(this.#state.viewsOf(oidVid(oid))[0]!, oid)
    return !this.#targetsIn(this.#state.view, oid).every((node) => before.includes(node))
  }

  async #lookAtOwn(
    holder: CopyHolder,
    objects: number,
    isCopyOn: (node: string, oid: bigint) => boolean,
  ): Promise<void> {
    const sequencer = new CopySequencer({
      vid: FAMILY,
      index: this.#state.families.ownerOf(FAMILY)!.index,
      incarnation: SELF.incarnation,
      clock: systemClock,
      views: this.#state.viewsOf(FAMILY),
      targetsOf: (oid, view) => this.#places.targetsOf(oid, this.#copies.in(FAMILY, view), view),
      copiesMinIn: (view) => this.#copies.in(FAMILY, view).copiesMin,
      send: (to, request, done) => {
        if (to.node === SELF.node) return holder.answer(request, done)
        // What comes from another node comes in a turn of its own.
        setImmediate(() => done(answered(request, (oid) => isCopyOn(to.node, oid))))
      },
      readNow: () => false,
      mayAct: () => true,
      suspect: () => {},
    })
    const settings = { isPaused: false, bytesPerSecond: null }
    const recovery = new Recovery({ clock: systemClock, settings: () => settings, bytesPerSecond: 100 << 20 })
    recovery.begin(FAMILY, objects)
    await bringHome({
      oids: Array.from({ length: objects }, (_, index) => dataOid(FAMILY, index)),
      sequencerOf: () => sequencer,
      isNamed: async () => true,
      goesOn: () => true,
      look: (look) => recovery.look(FAMILY, look),
      step: async () => 0,
      done: (objects) => recovery.done(FAMILY, objects),
    })
    sequencer.end()
  }

  async #measure(part: string, work: () => Promise<void>): Promise<void> {
    const stalls = monitorEventLoopDelay({ resolution: 1 })
    stalls.enable()
    await systemClock.sleep(50)
    stalls.reset()
    await systemClock.sleep(20) // the first turn after that is not counted
    const before = process.cpuUsage()
    await work()
    const { user, system } = process.cpuUsage(before)
    await systemClock.sleep(5) // what went on last is seen after it
    stalls.disable()
    this.costs.push({ part, cpuMs: (user + system) / 1000, stallMs: stalls.max / 1e6 })
  }
}

/** Another node, whose copies are as they should be. */
function answered(request: CopyRequest, hasCopy: (oid: bigint) => boolean): CopyAnswer {
  switch (request.type) {
    case 'open': {
      const copies = request.oids.map((oid) => {
        const state = hasCopy(oid) ? { version: cleanVersion(0), kind: 'full' as const, valid: ALL_BLOCKS } : null
        return { oid, state, allocated: [], tail: [] }
      })
      return { refused: null, result: { copies, lostThroughEpoch: 0 } }
    }
    case 'look': {
      const versions = new VersionArray(request.oids.length)
      for (const [at, oid] of request.oids.entries()) versions.set(at, hasCopy(oid) ? cleanVersion(0) : null)
      return { refused: null, result: versions }
    }
    case 'layout':
      return { refused: null, result: { data: [{ first: 0, count: 1 }] } }
    case 'blocks-since':
      return { refused: null, result: [] }
    default:
      return { refused: null, result: null }
  }
}

const questionOf =
  (type: 'look' | 'open') =>
  (oids: readonly bigint[]): CopyRequest => ({ type, vid: oidVid(oids[0]!), generation: GENERATION, oids })

/** What the owners ask: they look at all of their objects, and open those that have changed. */
async function answerAll(holder: CopyHolder, questions: readonly CopyRequest[]): Promise<void> {
  for (const question of questions) {
    await new Promise((resolve) => setImmediate(resolve)) // each comes in a turn of its own
    await new Promise((resolve) => holder.answer(question, resolve))
  }
}

/** Of one VDI each, and all of one `part`. */
function parts(oids: readonly bigint[], part: (oid: bigint, at: number) => number): bigint[][] {
  const found = new Map<string, bigint[]>()
  for (const [at, oid] of oids.entries()) {
    const key = `${oidVid(oid)} ${part(oid, at)}`
    const others = found.get(key)
    if (others) others.push(oid)
    else found.set(key, [oid])
  }
  return [...found.values()]
}

async function openStore(directory: string): Promise<ObjectStore> {
  mkdirSync(path.join(directory, 'store'), { recursive: true })
  const { store } = await ObjectStore.open({
    disk: openSystemDisk(path.join(directory, 'store')),
    clock: systemClock,
    random: systemRandom,
    log: createLog('silent'),
    segmentBytes: SEGMENT_BYTES,
    durability: 'flush',
    reserveBytes: 0,
    onFailed: (error) => {
      throw error
    },
  })
  return store
}

async function makeObjects(store: ObjectStore, oids: readonly bigint[]): Promise<void> {
  const bytes = Buffer.alloc(BLOCK_BYTES, 1)
  for (let first = 0; first < oids.length; first += MADE_AT_ONCE) {
    const made = oids.slice(first, first + MADE_AT_ONCE).map(
      (oid) =>
        new Promise<void>((resolve, reject) =>
          store.commit(
            [
              { kind: 'create', oid, runs: [] },
              { kind: 'blocks', object: oid, first: 0, bytes },
            ],
            { durable: false },
            (error) => (error ? reject(error) : resolve()),
          ),
        ),
    )
    await Promise.all(made)
  }
}

function print(costs: readonly Cost[]): void {
  console.log(`${'part'.padEnd(10)}${'CPU ms'.padStart(10)}${'longest stall ms'.padStart(20)}`)
  for (const { part, cpuMs, stallMs } of costs)
    console.log(part.padEnd(10) + cpuMs.toFixed(0).padStart(10) + stallMs.toFixed(0).padStart(20))
  console.log(`in all ${costs.reduce((sum, { cpuMs }) => sum + cpuMs, 0).toFixed(0)} ms (asked: 1000)`)
}

const directory = mkdtempSync(path.join(tmpdir(), 'epoch-bench-'))
try {
  const bench = new EpochBench()
  await bench.run(directory)
  if (options.json) console.log(JSON.stringify(bench.costs, null, 2))
  else print(bench.costs)
} finally {
  rmSync(directory, { recursive: true })
}
