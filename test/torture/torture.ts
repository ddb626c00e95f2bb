import path from 'node:path'
import { SeededRandom } from '../sim/random.ts'
import { CinderApi, type Connected } from '../tools/cinder-api.ts'
import { Cluster } from './cluster.ts'
import { FAULT_KINDS, FAULTS, type FaultKind } from './faults.ts'
import type { Place } from './inside.ts'
import type { TortureOptions } from './options.ts'
import { openByQemu } from './qemu-disk.ts'
import { compareReplicas } from './replicas.ts'
import type { TortureReport } from './report.ts'
import { goesOn, type Scene } from './scene.ts'
import { throughSheepdog } from './sheepdog-client.ts'
import { Stalls } from './stalls.ts'
import { StatusRecord } from './status-record.ts'
import { Writer } from './writer.ts'

const GIB = 1024 ** 3
const NEED_DISKS: readonly FaultKind[] = [
  'first-disk-dies',
  'second-disk-dies',
  'first-disk-hangs',
  'second-disk-hangs',
]
const COPIES = 3
const MINUTE_MS = 60_000
const PATIENCE_MS = 6000
/** QEMU goes on with what was asked of it, also for who has given up: it is given up with QEMU alone. */
const PATIENCE_WITH_QEMU_MS = 120_000

/** A whole run: makes the cluster, breaks it, and says what came of it. Everything that it starts has ended when it resolves. */
export async function torture(
  place: Place,
  options: TortureOptions,
  say: (line: string) => void,
): Promise<TortureReport> {
  const { directory, switchNamespace, hosts, gateways, client } = place
  const { group } = options
  const cluster = await Cluster.start({
    directory,
    switchNamespace,
    hosts,
    gateways,
    group,
    canFail: (options.faults ?? FAULT_KINDS).some((kind) => NEED_DISKS.includes(kind)),
    ownAddress: client.address,
  })
  const run = new Run(cluster, options, path.join(directory, 'client'), say)
  try {
    await run.toTheEnd()
  } catch (error) {
    run.report.findings.push((error as Error).message)
    say(`FAILED: ${(error as Error).stack}\n${cluster.logs()}`)
  } finally {
    await cluster.stop()
  }
  return run.report
}

class Run {
  readonly report: TortureReport
  readonly #cluster: Cluster
  readonly #options: TortureOptions
  readonly #directory: string
  readonly #random: SeededRandom
  readonly #say: (line: string) => void
  readonly #startedAt = Date.now()

  constructor(cluster: Cluster, options: TortureOptions, directory: string, say: (line: string) => void) {
    this.#cluster = cluster
    this.#options = options
    this.#directory = directory
    this.#say = say
    this.#random = new SeededRandom(options.seed)
    this.report = {
      seed: options.seed,
      group: options.group,
      nodes: options.nodes,
      seconds: 0,
      faults: [],
      writer: { acknowledged: 0, refused: 0, unanswered: 0, connections: 0, sectorsChecked: 0 },
      byQemu: null,
      objectsCompared: 0,
      restarts: 0,
      statusAnswers: 0,
      findings: [],
    }
  }

  async toTheEnd(): Promise<void> {
    await this.#cluster.untilWell()
    this.#say('all nodes are in')
    const [first] = this.#cluster.hosts
    const api = new CinderApi(path.join(first!.dataDir, 'openrc'))
    const volumeId = await api.createVolume({ size: 1 })
    await api.until('volume', volumeId, 'available')
    const attached = await api.attach(volumeId)
    const record = new StatusRecord(this.#cluster, this.#say)
    const writer = this.#newWriter(attached)
    this.report.writer = writer.tally
    record.start()
    writer.start()
    const byQemu = this.#options.withQemu ? await this.#writeByQemu() : null
    try {
      await this.#breakThings(writer, byQemu, api)
      await Promise.all([writer.stop(), byQemu?.stop()])
      await throughSheepdog(this.#cluster.stores, this.#directory)
      await api.detach(attached.id)
    } finally {
      await record.stop()
      this.report.statusAnswers = record.answers
      this.report.restarts = this.#cluster.hosts.reduce((sum, { restarts }) => sum + restarts, 0)
      this.report.seconds = Math.round((Date.now() - this.#startedAt) / 1000)
    }
    await this.#compare()
  }

  async #writeByQemu(): Promise<Writer> {
    const gateway = await openByQemu(this.#cluster.hosts.at(-1)!, '1G')
    const ledgerPath = path.join(this.#directory, 'ledger-of-qemu')
    const seed = this.#random.below(2 ** 31)
    const options = { seed, ledgerPath, sizeBytes: GIB, exportName: '', gateways: [gateway], trims: false }
    const writer = new Writer({ ...options, patienceMs: PATIENCE_WITH_QEMU_MS })
    this.report.byQemu = { writer: writer.tally, faults: [] }
    writer.start()
    return writer
  }

  async #breakThings(writer: Writer, byQemu: Writer | null, api: CinderApi): Promise<void> {
    const stalls = new Stalls()
    const stallsOfQemu = new Stalls()
    const holdMs = this.#options.holdSeconds * 1000
    const [withApi] = this.#cluster.hosts
    const cluster = this.#cluster
    const sceneOf = (kind: FaultKind): Scene => ({
      cluster,
      writer,
      random: this.#random,
      holdMs,
      whileIt: async () => {
        if (kind === 'kill' && withApi!.isServing) await this.#useApi(api)
      },
    })
    const writers = byQemu ? [writer, byQemu] : [writer]
    for (const each of writers) await goesOn({ writer: each })
    try {
      for (const kind of this.#kinds()) {
        this.#say(`${kind}, while the writer is at ${writer.gateway}`)
        for (const each of writers) each.takeLongestWaitMs()
        await FAULTS[kind](sceneOf(kind))
        this.#say(`${kind} is over`)
        await cluster.untilWell()
        for (const each of writers) await goesOn({ writer: each })
        const waitedMs = writer.takeLongestWaitMs()
        stalls.add(kind, waitedMs)
        if (byQemu) stallsOfQemu.add(kind, byQemu.takeLongestWaitMs())
        const { acknowledged } = writer.tally
        this.#say(
          `${kind}: all is well, the client waited ${(waitedMs / 1000).toFixed(1)} s at most; ${acknowledged} writes so far`,
        )
      }
    } finally {
      this.report.faults = stalls.table()
      if (this.report.byQemu) this.report.byQemu.faults = stallsOfQemu.table()
    }
  }

  *#kinds(): Generator<FaultKind> {
    const { faults, minutes } = this.#options
    if (faults) return yield* faults
    while (Date.now() < this.#startedAt + minutes * MINUTE_MS) yield this.#random.pick(FAULT_KINDS)
  }

  /** The API answers while other nodes than its own are gone. */
  async #useApi(api: CinderApi): Promise<void> {
    const volumeId = await api.createVolume({ size: 1 })
    await api.until('volume', volumeId, 'available')
    await api.delete('volume', volumeId)
    await api.untilGone('volume', volumeId)
  }

  async #compare(): Promise<void> {
    const { stores } = this.#cluster
    await Promise.all(this.#cluster.hosts.map((host) => host.killNode('SIGTERM')))
    const { objects, findings } = await compareReplicas(stores, COPIES)
    this.report.objectsCompared = objects
    this.report.findings.push(...findings)
  }

  #newWriter({ name: exportName }: Connected): Writer {
    const gateways = this.#cluster.hosts.map(({ nbdAddress }) => nbdAddress)
    const seed = this.#random.below(2 ** 31)
    const ledgerPath = path.join(this.#directory, 'ledger')
    return new Writer({ seed, ledgerPath, sizeBytes: GIB, exportName, gateways, patienceMs: PATIENCE_MS, trims: true })
  }
}
