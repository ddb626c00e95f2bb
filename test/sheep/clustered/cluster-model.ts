import assert from 'node:assert'
import { StoreError } from '../../../src/errors.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import type { VdiClient } from '../../../src/vdi/client.ts'
import type { Device } from '../../../src/vdi/device.ts'
import { type Operation, whyNotLinearizable } from '../copies/linearizable.ts'
import { type BenchNode, ClusterBench } from './cluster-bench.ts'

const OBJECTS = 3
const BLOCKS = 4
const CLIENTS = 3
/** A client that has no answer for so long tries another gateway. */
const PATIENCE_MS = 30_000
const LIVENESS_MS = 300_000

interface Client {
  readonly name: string
  readonly nameHash: string
  device: Device | null
  readonly snapshots: { tag: string; held: string }[]
}

/**
 * Whole nodes with clients that write and read one VDI each, through any gateway, while processes end, power fails, machines stand still and the
 * network is cut. Checked: histories of each block, with attempts that failed and were made again, are linearizable; when faults
 * stop, all nodes come together, all requests end, and everything is where it belongs.
 */
export class ClusterModel {
  readonly counts = {
    writes: 0,
    reads: 0,
    snapshots: 0,
    reopened: 0,
    kills: 0,
    powerLosses: 0,
    stops: 0,
    cuts: 0,
    starts: 0,
  }
  readonly #bench: ClusterBench
  readonly #clock: Clock
  readonly #clients: Client[]
  readonly #histories = new Map<string, Operation[]>()
  readonly #stopped = new Set<BenchNode>()
  #isCut = false
  #events = 0
  #values = 0
  #failure: Error | null = null

  private constructor(bench: ClusterBench) {
    this.#bench = bench
    this.#clock = bench.clock.node().mount()
    this.#clients = Array.from({ length: CLIENTS }, (_, at) => ({
      name: `client${at}`,
      nameHash: `${at}`.repeat(64),
      device: null,
      snapshots: [],
    }))
  }

  static async run(seed: number, requests: number): Promise<ClusterModel['counts']> {
    const bench = await ClusterBench.open(seed, 3 + (seed % 3))
    const model = new ClusterModel(bench)
    await bench.run(model.#scenario(requests))
    return model.counts
  }

  get #random() {
    return this.#bench.random
  }

  async #scenario(requests: number): Promise<void> {
    for (const { name, nameHash } of this.#clients) {
      const vdis = this.#bench.vdis(0)
      const vid = await vdis.create(name, OBJECTS * OBJECT_BYTES)
      await vdis.putExport({ attachmentId: name, nameHash, vid, readOnly: false })
    }
    let running = this.#clients.length
    for (const client of this.#clients) {
      this.#beside(this.#work(client, requests / CLIENTS).finally(() => running--))
    }
    for (let faults = 0; running > 0 && faults < requests; faults++) {
      await this.#clock.sleep(this.#random.next() * 3000)
      await this.#act()
      if (this.#failure) throw this.#failure
    }
    await this.#mend()
    const endMs = this.#clock.monotonicMs() + LIVENESS_MS
    while (running > 0 || !this.#isWell()) {
      if (this.#failure) throw this.#failure
      assert(this.#clock.monotonicMs() < endMs, `no end: ${running} clients, ${this.#bench.describe()}`)
      await this.#clock.sleep(500)
    }
    for (const client of this.#clients) {
      for (let index = 0; index < OBJECTS; index++) await this.#read(client, index)
    }
    for (const client of this.#clients) {
      for (const { tag, held } of client.snapshots)
        assert.equal(await this.#heldBy(client, tag), held, `what ${client.name}@${tag} holds has changed`)
    }
    this.#check()
    await this.#deleteAll()
  }

  #beside(work: Promise<unknown>): void {
    work.catch((error: Error) => {
      this.#failure ??= error
    })
  }

  // Clients

  async #work(client: Client, requests: number): Promise<void> {
    for (let count = 0; count < requests; count++) {
      await this.#clock.sleep(this.#random.next() * this.#random.pick([10, 400]))
      const index = this.#random.below(OBJECTS)
      const dice = this.#random.next()
      if (dice < 0.57) await this.#write(client, index)
      else if (dice < 0.97) await this.#read(client, index)
      else await this.#snapshot(client, `s${count}`)
    }
  }

  /** Each attempt is a write of its own: whether the ones before took effect, and when, nobody knows. */
  async #write(client: Client, index: number): Promise<void> {
    const block = this.#random.below(BLOCKS)
    for (;;) {
      const device = await this.#deviceOf(client)
      const value = ++this.#values
      const operation = this.#begin(client, index, block, { kind: 'write', value })
      const bytes = Buffer.alloc(BLOCK_BYTES)
      bytes.writeUInt32LE(value)
      const offset = index * OBJECT_BYTES + block * BLOCK_BYTES
      if ((await this.#attempt(client, this.#bench.write(device, offset, bytes))) === null) continue
      operation.end = ++this.#events
      this.counts.writes++
      return
    }
  }

  async #read(client: Client, index: number): Promise<void> {
    for (;;) {
      const device = await this.#deviceOf(client)
      const operations = Array.from({ length: BLOCKS }, (_, block) =>
        this.#begin(client, index, block, { kind: 'read', value: 0 }),
      )
      const read = this.#bench.read(device, index * OBJECT_BYTES, BLOCKS * BLOCK_BYTES)
      const bytes = await this.#attempt(client, read)
      if (bytes === null) continue
      this.#events++
      for (const [block, operation] of operations.entries()) {
        operation.value = bytes.readUInt32LE(block * BLOCK_BYTES)
        operation.end = this.#events
      }
      this.counts.reads++
      return
    }
  }

  /** May fail, and may have been taken all the same. What one holds never changes from then on. */
  async #snapshot(client: Client, tag: string): Promise<void> {
    const taken = await this.#byAny(async (vdis) => vdis.snapshot(await vdis.lookup(client.name), tag))
    if (taken === null) return
    this.counts.snapshots++
    client.snapshots.push({ tag, held: await this.#heldBy(client, tag) })
  }

  async #heldBy(client: Client, tag: string): Promise<string> {
    for (;;) {
      const held = await this.#byAny(async (vdis) => {
        const device = await vdis.open(await vdis.lookup(client.name, tag), { readOnly: true })
        const read = (index: number) => this.#bench.read(device, index * OBJECT_BYTES, BLOCKS * BLOCK_BYTES)
        const objects = await Promise.all(Array.from({ length: OBJECTS }, (_, index) => read(index)))
        await device.close()
        return Buffer.concat(objects).toString('base64')
      })
      if (held !== null) return held
      await this.#clock.sleep(200)
    }
  }

  /** Through some node; null when it failed, or takes too long. */
  async #byAny<T>(work: (vdis: VdiClient) => Promise<T>): Promise<T | null> {
    const { running } = this.#random.pick(this.#bench.nodes)
    if (!running) return null
    const done = work(running.vdis)
    try {
      return await Promise.race([done, this.#clock.sleep(PATIENCE_MS).then(() => Promise.reject(new Impatient()))])
    } catch (error) {
      if (!(error instanceof StoreError) && !(error instanceof Impatient)) throw error
      return null
    } finally {
      done.catch(() => {})
    }
  }

  /** With everything gone nothing is left on any node. */
  async #deleteAll(): Promise<void> {
    const left = () => this.#bench.nodes.flatMap(({ running }) => [...running!.node.sheep.state.vdis.values()])
    for (const { name, device } of this.#clients) {
      await device?.close()
      while ((await this.#byAny((vdis) => vdis.removeExport(name).then(() => true))) === null)
        await this.#clock.sleep(200)
    }
    const endMs = this.#clock.monotonicMs() + LIVENESS_MS
    while (left().length > 0) {
      assert(this.#clock.monotonicMs() < endMs, `not gone: ${JSON.stringify(left())}`)
      const living = left().find(({ deleting }) => !deleting)
      if (living) await this.#byAny((vdis) => vdis.remove(living.name, '', living.snapshotAt > 0 ? living.snapId : 0))
      await this.#clock.sleep(300)
    }
    while (this.#bench.objects().length > 0) {
      assert(this.#clock.monotonicMs() < endMs, `objects are left: ${this.#bench.objects().join(', ')}`)
      await this.#clock.sleep(1000)
    }
  }

  #begin(client: Client, index: number, block: number, of: Pick<Operation, 'kind' | 'value'>): Operation {
    const key = `${client.name} ${index}.${block}`
    const operation = { ...of, start: ++this.#events, end: Number.POSITIVE_INFINITY }
    this.#histories.set(key, [...(this.#histories.get(key) ?? []), operation])
    return operation
  }

  /** Null when it failed, or takes too long: then the client goes to a gateway again. */
  async #attempt<T>(client: Client, request: Promise<T>): Promise<T | null> {
    try {
      return await Promise.race([request, this.#clock.sleep(PATIENCE_MS).then(() => Promise.reject(new Impatient()))])
    } catch (error) {
      if (!(error instanceof StoreError) && !(error instanceof Impatient)) throw error
      client.device = null
      return null
    } finally {
      request.catch(() => {})
    }
  }

  async #deviceOf(client: Client): Promise<Device> {
    while (!client.device) {
      const node = this.#random.pick(this.#bench.nodes)
      if (node.running) {
        const opening = node.running.vdis.openExport(client.nameHash, false)
        client.device = await this.#attempt(client, opening)
      }
      if (client.device) this.counts.reopened++
      else await this.#clock.sleep(200)
    }
    return client.device
  }

  // Faults

  async #act(): Promise<void> {
    const node = this.#random.pick(this.#bench.nodes)
    const dice = this.#random.next()
    if (dice < 0.35) await this.#start(node)
    else if (dice < 0.5) this.#end(node, false)
    else if (dice < 0.56) this.#end(node, true)
    else if (dice < 0.7) this.#cut()
    else if (dice < 0.85) this.#heal()
    else if (dice < 0.92) this.#stop(node)
    else this.#resume(node)
  }

  async #start(node: BenchNode): Promise<void> {
    if (node.running) return
    this.counts.starts++
    this.#beside(this.#bench.begin(node))
  }

  #end(node: BenchNode, losesPower: boolean): void {
    if (!node.running && !node.isStarting) return
    this.#stopped.delete(node)
    for (const client of this.#clients) client.device = null
    if (losesPower) this.counts.powerLosses++
    else this.counts.kills++
    this.#bench.kill(node, losesPower)
  }

  #stop(node: BenchNode): void {
    if (!node.running || this.#stopped.has(node)) return
    this.counts.stops++
    this.#stopped.add(node)
    this.#bench.stop(node)
  }

  #resume(node: BenchNode): void {
    if (this.#stopped.delete(node)) this.#bench.resume(node)
  }

  #cut(): void {
    if (this.#isCut) return
    this.#isCut = true
    this.counts.cuts++
    const sides: string[][] = [[], []]
    for (const { name } of this.#bench.nodes) this.#random.pick(sides).push(name)
    this.#bench.group.partition(sides)
    this.#bench.network.cut(sides)
  }

  #heal(): void {
    if (!this.#isCut) return
    this.#isCut = false
    this.#bench.group.heal()
    this.#bench.network.heal()
  }

  async #mend(): Promise<void> {
    this.#heal()
    for (const node of this.#bench.nodes) this.#resume(node)
    for (const node of this.#bench.nodes) await this.#start(node)
  }

  #isWell(): boolean {
    return this.#bench.nodes.every((node) => this.#bench.isIn(node)) && this.#bench.isClean()
  }

  #check(): void {
    for (const [key, operations] of this.#histories) {
      const why = whyNotLinearizable(operations)
      if (why) throw new Error(`${key}: ${why}`)
    }
  }
}

class Impatient extends Error {}
