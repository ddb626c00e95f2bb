import assert from 'node:assert'
import { FLAG, RESULT } from '../../../src/protocol/constants.ts'
import type { SheepRequest } from '../../../src/protocol/message.ts'
import { dataOid } from '../../../src/protocol/oid.ts'
import { OP } from '../../../src/protocol/opcodes.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../../src/sheep/object-format.ts'
import type { Reply } from '../../../src/sheep/server.ts'
import { type BenchNode, ClusterBench } from './cluster-bench.ts'
import { ClusterFaults, type FaultCounts, NO_FAULTS } from './cluster-faults.ts'
import { connectForeign, type ForeignConnection, lockRequest } from './foreign-connection.ts'
import { bytesOf, type RangeOperation, TESTED_BYTES, TestedVdi, UNIT_BYTES } from './tested-vdi.ts'

const NAME = 'machine'
const OBJECTS = 3
const LIVENESS_MS = 300_000
/** A machine looks at its connection so often. */
const LOOK_MS = 50
/** How many of its requests are under way. */
const DEPTH = 4

export interface QemuReport {
  writes: number
  reads: number
  discards: number
  /** Requests that were sent again over a new connection. */
  resent: number
  faults: FaultCounts
}

interface Asked {
  request: SheepRequest
  start: number
  end: number
}

/**
 * A machine that writes over the original protocol, as QEMU does, while everything happens to the nodes that `ClusterFaults` knows. It is
 * on one node, and knows that one alone: when its connection ends it makes another one, and sends again what has no answer. Of its
 * requests no two that are under way overlap. Checked: no request is answered with an error, whatever happens; what was answered is
 * what is read afterwards; and when faults stop, all is answered.
 */
export class QemuModel {
  readonly report: QemuReport = { writes: 0, reads: 0, discards: 0, resent: 0, faults: { ...NO_FAULTS } }
  readonly #bench: ClusterBench
  readonly #clock: Clock
  readonly #home: BenchNode
  readonly #vdi = new TestedVdi(NAME, OBJECTS, false)
  readonly #isDurable: boolean
  readonly #faults: ClusterFaults
  readonly #underWay = new Set<Asked>()
  /** Of objects that are its own, as far as it knows. */
  readonly #made = new Set<number>()
  #vid = 0
  #io: ForeignConnection | null = null
  #values = 0
  #failure: Error | null = null

  private constructor(bench: ClusterBench) {
    const { random } = bench
    this.#bench = bench
    this.#clock = bench.clock.node().mount()
    this.#home = random.pick(bench.nodes)
    this.#isDurable = random.chance(0.6)
    this.#faults = new ClusterFaults({
      bench,
      isDurable: this.#isDurable,
      counts: this.report.faults,
      blackout: () => {
        if (!this.#isDurable) this.#vdi.lose()
      },
      failed: (error) => {
        this.#failure ??= error
      },
    })
  }

  static async run(seed: number, { faults, operations }: { faults: number; operations: number }): Promise<QemuReport> {
    const bench = await ClusterBench.open(seed, 3 + (seed % 2), { copies: seed % 5 === 0 ? 2 : 3, segmentBlocks: 2048 })
    const model = new QemuModel(bench)
    await bench.run(model.#scenario(faults, operations))
    return model.report
  }

  async #scenario(faults: number, operations: number): Promise<void> {
    const maker = this.#bench.connect(this.#bench.random.pick(this.#bench.nodes))!
    this.#vid = await maker.vdis.create(NAME, this.#vdi.sizeBytes)
    maker.close()
    this.#io = connectForeign(this.#home)
    const control = connectForeign(this.#home)
    assert.equal((await control.ask(lockRequest(NAME))).result, RESULT.SUCCESS)
    control.close()

    const { report } = this
    const answered = () => report.writes + report.reads + report.discards
    const isOver = () => answered() >= operations && this.#faults.total >= faults
    let running = DEPTH
    for (let loop = 0; loop < DEPTH; loop++)
      void this.#work(isOver)
        .catch((error: Error) => {
          this.#failure ??= error
        })
        .finally(() => running--)
    while (!isOver() && running > 0) {
      await this.#clock.sleep(this.#bench.random.next() * 1500)
      const isDue = this.#faults.total * operations <= answered() * faults
      if (isDue && this.#bench.random.chance(0.6)) this.#faults.act()
      else this.#faults.mendSome()
      if (this.#failure) throw this.#failure
    }
    const endMs = this.#clock.monotonicMs() + LIVENESS_MS
    do {
      this.#faults.mend()
      await this.#clock.sleep(500)
      if (this.#failure) throw this.#failure
      const waiting = [...this.#underWay].map(({ request }) => `${request.opcode} at ${request.oid?.toString(16)}`)
      assert(this.#clock.monotonicMs() < endMs, `never answered: ${waiting}; ${this.#bench.describe()}`)
    } while (running > 0 || !this.#bench.isIn(this.#home))
    for (let index = 0; index < OBJECTS; index++) await this.#read(index)
    this.#vdi.check()
  }

  async #work(isOver: () => boolean): Promise<void> {
    const { random } = this.#bench
    while (!isOver()) {
      await this.#clock.sleep(random.next() * random.pick([5, 80]))
      const index = random.below(OBJECTS)
      const dice = random.next()
      if (dice < 0.5) await this.#write(index)
      else if (dice < 0.55) await this.#discard(index)
      else if (dice < 0.65 && !this.#isDurable) await this.#flush()
      else await this.#read(index)
    }
  }

  async #write(index: number): Promise<void> {
    const { random } = this.#bench
    const lengthBytes = random.pick([UNIT_BYTES, BLOCK_BYTES, 2 * BLOCK_BYTES])
    const offset = random.below((TESTED_BYTES - lengthBytes) / lengthBytes + 1) * lengthBytes
    // One that makes an object is the only one at it, as with QEMU.
    const makes = !this.#made.has(index)
    const start = index * OBJECT_BYTES + (makes ? 0 : offset)
    const end = index * OBJECT_BYTES + (makes ? OBJECT_BYTES : offset + lengthBytes)
    const value = ++this.#values
    const body = bytesOf(value, lengthBytes)
    const request: SheepRequest = {
      opcode: makes ? OP.CREATE_AND_WRITE_OBJ : OP.WRITE_OBJ,
      flags: this.#flags,
      oid: dataOid(this.#vid, index),
      offset,
      body,
    }
    const change = () => this.#vdi.begin('write', index * OBJECT_BYTES + offset, lengthBytes, value, this.#isDurable)
    if (!(await this.#asksFreely({ request, start, end }, change, () => makes === !this.#made.has(index)))) return
    this.#made.add(index)
    this.report.writes++
  }

  async #discard(index: number): Promise<void> {
    if (!this.#made.has(index)) return
    const start = index * OBJECT_BYTES
    const request = { opcode: OP.DISCARD_OBJ, flags: this.#flags, oid: dataOid(this.#vid, index) }
    const change = () => this.#vdi.begin('write', start, OBJECT_BYTES, 0, this.#isDurable)
    if (!(await this.#asksFreely({ request, start, end: start + OBJECT_BYTES }, change, () => this.#made.has(index))))
      return
    this.#made.delete(index)
    this.report.discards++
  }

  async #flush(): Promise<void> {
    const request = { opcode: OP.FLUSH_VDI, oid: dataOid(this.#vid, 0) }
    const { operation } = await this.#asks({ request, start: 0, end: 0 }, () => this.#vdi.beginFlush())
    this.#vdi.endFlush(operation)
  }

  async #read(index: number): Promise<void> {
    if (!this.#made.has(index)) return
    const start = index * OBJECT_BYTES
    const request = { opcode: OP.READ_OBJ, oid: dataOid(this.#vid, index), offset: 0, dataLength: TESTED_BYTES }
    const begin = () => this.#vdi.begin('read', start, TESTED_BYTES, 0, false)
    const { operation, reply } = await this.#asks({ request, start, end: start }, begin)
    const { result, body } = reply
    this.#vdi.end(operation)
    if (result === RESULT.NO_OBJ) return // discarded meanwhile
    this.#vdi.found(operation, index, body!)
    this.report.reads++
  }

  get #flags(): number {
    return FLAG.WRITE | (this.#isDurable ? 0 : FLAG.CACHE)
  }

  /** False when something overlaps that is under way, or `isMeant` is not so any more. */
  async #asksFreely(asked: Asked, begin: () => RangeOperation, isMeant: () => boolean): Promise<boolean> {
    const isFree = [...this.#underWay].every(({ start, end }) => end <= asked.start || asked.end <= start)
    if (!isFree || !isMeant()) return false
    const { operation, reply } = await this.#asks(asked, begin, (left) => this.#vdi.giveUp(left))
    const { result } = reply
    if (result === RESULT.NO_SPACE) this.#vdi.giveUp(operation)
    else this.#vdi.end(operation)
    return result === RESULT.SUCCESS
  }

  /**
   * However often its connection ends. Each attempt is an operation of its own: what became of the ones before, nobody knows. But they
   * are over when the next one begins.
   */
  async #asks<O>(
    asked: Asked,
    begin: () => O,
    giveUp: (operation: O) => void = () => {},
  ): Promise<{ operation: O; reply: Reply }> {
    this.#underWay.add(asked)
    try {
      for (let attempt = 0; ; attempt++) {
        if (attempt > 0) this.report.resent++
        const io = await this.#connected()
        const operation = begin()
        const reply = await this.#unlessOver(io, io.ask(asked.request))
        if (reply === null) {
          giveUp(operation)
          continue
        }
        assert(
          HARMLESS.has(reply.result),
          `opcode ${asked.request.opcode} is answered with ${reply.result.toString(16)}`,
        )
        return { operation, reply }
      }
    } finally {
      this.#underWay.delete(asked)
    }
  }

  async #unlessOver(io: ForeignConnection, answer: Promise<Reply>): Promise<Reply | null> {
    let reply: Reply | null = null
    void answer.then((answered) => {
      reply = answered
    })
    while (reply === null && !io.isOver) await Promise.race([answer, this.#clock.sleep(LOOK_MS)])
    return reply
  }

  async #connected(): Promise<ForeignConnection> {
    while (this.#io?.isOver ?? true) {
      if (this.#home.running) this.#io = connectForeign(this.#home)
      else await this.#clock.sleep(LOOK_MS)
    }
    return this.#io!
  }
}

/** A full disk, and an object that is not there. */
const HARMLESS: ReadonlySet<number> = new Set([RESULT.SUCCESS, RESULT.NO_SPACE, RESULT.NO_OBJ])
