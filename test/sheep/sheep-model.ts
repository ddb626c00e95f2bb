import { pino } from 'pino'
import type { StoreError } from '../../src/errors.ts'
import { FLAG } from '../../src/protocol/constants.ts'
import type { SheepRequest } from '../../src/protocol/message.ts'
import { dataOid, inodeOid, vmstateOid } from '../../src/protocol/oid.ts'
import { OP } from '../../src/protocol/opcodes.ts'
import { errorOf } from '../../src/results.ts'
import { tellMarks } from '../../src/sheep/content-marks.ts'
import { BLOCK_BYTES, OBJECT_BYTES } from '../../src/sheep/object-format.ts'
import { runOperation } from '../../src/sheep/ops.ts'
import { Sheep } from '../../src/sheep/sheep.ts'
import { SimClock } from '../sim/clock.ts'
import { SimDisk } from '../sim/disk.ts'
import { SeededRandom } from '../sim/random.ts'
import { MarkedContents } from './marked-contents.ts'

const SECTOR = 512
const VDI_BYTES = 3 * OBJECT_BYTES
/** Where the action is: the start, and across the borders of objects. */
const WINDOWS = [0, OBJECT_BYTES - 8192, 2 * OBJECT_BYTES - 8192]
const WINDOW_BYTES = 16384

/** Which stamps a sector may hold; 0 is zeros. `durable` after loss of power, `visible` otherwise. */
interface Sector {
  visible: Set<number>
  durable: Set<number>
  /** Writes under way. */
  inFlight: number
  /** Whether those under way have overlapped with others. */
  contended: boolean
}

type Done = (error: StoreError | null) => void

interface ModelVdi {
  name: string
  tag: string
  vid: number
  session: number
  sectors: Map<number, Sector>
  /** Set durably, by name. */
  attributes: Map<string, Buffer>
}

/**
 * One seed of a single sheep: concurrent unaligned writes, reads, discards and flushes on a family of VDIs with snapshots and
 * clones, under kills and losses of power. Each sector must always hold what the contract of a device allows; in the
 * end the audit finds nothing, and when everything is deleted no object is left.
 */
export class SheepModel {
  readonly random: SeededRandom
  readonly clock: SimClock
  readonly disk: SimDisk
  readonly durability: 'flush' | 'write'
  /** Few, in half of the seeds, so that objects come and go all the time. */
  readonly loadedObjectsMax: number
  /** In half of the seeds nearly every write of whole blocks goes straight to the object file. */
  readonly placedMinBytes: number
  /** In half of the seeds the scrub reads everything again and again. */
  readonly scrubBytesPerSecond: number
  #sheep!: Sheep
  #vdis: ModelVdi[] = []
  #stamp = 0
  #names = 0
  #life = 0
  #underWay = 0
  #auditing: Promise<void> = Promise.resolve()
  #isAuditing = false
  /** What an audit beside I/O has found, which must be nothing. */
  #finding = ''
  readonly marked = new MarkedContents()
  readonly counts = {
    writes: 0,
    reads: 0,
    snapshots: 0,
    clones: 0,
    deletes: 0,
    audits: 0,
    scrubs: 0,
    crashes: 0,
    foreign: 0,
    rollbacks: 0,
  }

  constructor(seed: number) {
    this.random = new SeededRandom(seed)
    this.clock = new SimClock(this.random)
    this.disk = new SimDisk(this.random, this.clock)
    this.durability = this.random.chance(0.3) ? 'write' : 'flush'
    this.scrubBytesPerSecond = this.random.chance(0.5) ? 2 ** 30 : 0
    this.loadedObjectsMax = this.random.chance(0.5) ? 4 : 4096
    this.placedMinBytes = (this.random.chance(0.5) ? 1 + this.random.below(3) : 16) * BLOCK_BYTES
  }

  async run(steps: number): Promise<void> {
    await this.#open()
    await this.#create()
    for (let step = 0; step < steps; step++) {
      const dice = this.random.next()
      if (dice < 0.4) this.#write()
      else if (dice < 0.48) this.#discard()
      else if (dice < 0.6) await this.#read(this.random.pick(this.#vdis))
      else if (dice < 0.66) await this.#flush()
      else if (dice < 0.7) await this.#snapshot()
      else if (dice < 0.73) await this.#clone()
      else if (dice < 0.75) await this.#create()
      else if (dice < 0.77) await this.#delete()
      else if (dice < 0.79) await this.#rollback()
      else if (dice < 0.8) await this.#setAttribute()
      else if (dice < 0.805) await this.#saveMachine()
      else if (dice < 0.82) this.#auditBeside()
      else if (dice < 0.96) for (let i = this.random.below(20); i > 0; i--) this.clock.step()
      else await this.#crash()
    }
    await this.#settle()
    await this.#audit()
    await this.clock.run(this.#auditing)
    await this.clock.run(this.#sheep.close())
    this.#life++
    await this.#open()
    await this.#readAll()
    while (this.#vdis.length > 0) await this.#delete({ quiet: true })
    const report = await this.#audit()
    if (report.objects > 0) throw new Error(`${report.objects} objects are left after everything was deleted`)
    if (this.#sheep.allocatedBytes > 0) throw new Error('accounts are left after everything was deleted')
  }

  async #open(): Promise<void> {
    const life = this.#life
    this.#sheep = await this.clock.run(
      Sheep.open({
        disk: this.disk.mount(),
        clock: this.clock.mount(),
        random: this.random,
        log: pino({ level: 'silent' }),
        address: '127.0.0.1:7000',
        zone: 0,
        segmentBytes: 60 * BLOCK_BYTES,
        durability: this.durability,
        reserveBytes: 0,
        copies: 1,
        loadedObjectsMax: this.loadedObjectsMax,
        placedMinBytes: this.placedMinBytes,
        scrubBytesPerSecond: this.scrubBytesPerSecond,
        scrubIntervalMs: 1,
        onFailed: (error) => {
          if (life === this.#life) throw error
        },
      }),
    )
    for (const vdi of this.#vdis) vdi.session = this.#sheep.sessions.openAnonymous(vdi.vid, false).id
  }

  #session(vdi: ModelVdi) {
    return this.#sheep.sessions.get(vdi.session)
  }

  #working(): ModelVdi[] {
    return this.#vdis.filter((vdi) => vdi.tag === '')
  }

  #range(): { offset: number; length: number } {
    const window = this.random.pick(WINDOWS)
    const first = this.random.below(WINDOW_BYTES / SECTOR)
    const aligned = this.random.chance(0.5)
    const start = aligned ? first - (first % 8) : first
    const sectors = aligned ? 8 * (1 + this.random.below(3)) : 1 + this.random.below(20)
    const offset = window + start * SECTOR
    return { offset, length: Math.min(sectors * SECTOR, window + WINDOW_BYTES - offset) }
  }

  #write(): void {
    const vdi = this.random.pick(this.#working())
    if (!vdi) return
    const { offset, length } = this.#range()
    const stamp = ++this.#stamp
    const fua = this.random.chance(0.1)
    const bytes = Buffer.alloc(length)
    for (let at = 0; at < length; at += SECTOR) stampSector(bytes.subarray(at, at + SECTOR), stamp, offset + at)
    this.counts.writes++
    const isForeign = this.random.chance(0.3) && offset % OBJECT_BYTES <= OBJECT_BYTES - length
    const done = this.#changing(vdi, offset, length, stamp, fua)
    if (isForeign) this.#writeObject(vdi, offset, bytes, fua, done)
    else this.#session(vdi).write(offset, bytes, fua, done)
  }

  /** As QEMU writes: it names the object, and confirms the map's entry of it. */
  #writeObject(vdi: ModelVdi, offset: number, body: Buffer, fua: boolean, done: Done): void {
    this.counts.foreign++
    const flags = FLAG.WRITE | (fua ? 0 : FLAG.CACHE)
    const [index, at] = [Math.floor(offset / OBJECT_BYTES), offset % OBJECT_BYTES]
    const { vid } = this.#sheep.state.find(vdi.name)
    this.#submit({ opcode: OP.CREATE_AND_WRITE_OBJ, flags, oid: dataOid(vid, index), offset: at, body }, (error) => {
      // A snapshot was taken: once more, under the vid with which the VDI goes on.
      if (error?.code === 'ReadOnly') return this.#writeObject(vdi, offset, body, fua, done)
      done(error)
      if (error || this.random.chance(0.5)) return
      const entry = Buffer.alloc(8)
      entry.writeUInt32LE(vid)
      const confirm = { opcode: OP.WRITE_OBJ, flags, oid: inodeOid(vid), offset: 4664 + 4 * index, body: entry }
      this.#submit(confirm, () => {}) // discarded or frozen meanwhile, it may be refused
    })
  }

  #submit(request: SheepRequest, done: Done): void {
    runOperation(this.#sheep, { protoVer: 0, ...request }, null, ({ result }) => done(errorOf(result)))
  }

  #discard(): void {
    const vdi = this.random.pick(this.#working())
    if (!vdi) return
    const whole = this.random.chance(0.3)
    const { offset, length } = whole
      ? { offset: OBJECT_BYTES * this.random.below(3), length: OBJECT_BYTES }
      : this.#range()
    const done = this.#changing(vdi, offset, length, 0, false)
    this.#session(vdi).discard(offset, length, false, done)
  }

  /** From now on the sectors may hold the new stamp, and when it is done, and nothing else is under way, they do. */
  #changing(vdi: ModelVdi, offset: number, length: number, stamp: number, fua: boolean) {
    const sectors = touched(vdi, offset, length, stamp !== 0)
    for (const sector of sectors) {
      sector.visible.add(stamp)
      sector.durable.add(stamp)
      sector.inFlight++
      if (sector.inFlight > 1) sector.contended = true
    }
    this.#underWay++
    const life = this.#life
    return (error: StoreError | null) => {
      if (life !== this.#life) return
      if (error) throw error
      this.#underWay--
      for (const sector of sectors) {
        // Of writes that overlapped in time any may be the last; one that was alone is.
        const alone = sector.inFlight === 1 && !sector.contended
        sector.inFlight--
        if (sector.inFlight === 0) sector.contended = false
        if (!alone) continue
        sector.visible = new Set([stamp])
        if (fua || this.durability === 'write') sector.durable = new Set([stamp])
      }
    }
  }

  async #flush(): Promise<void> {
    const vdi = this.random.pick(this.#working())
    if (!vdi) return
    const quiet = this.#working().flatMap((each) =>
      [...each.sectors.values()].filter((sector) => sector.inFlight === 0),
    )
    const before = quiet.map((sector) => ({ sector, visible: new Set(sector.visible) }))
    await this.clock.run(
      new Promise<void>((resolve, reject) => this.#session(vdi).flush((error) => (error ? reject(error) : resolve()))),
    )
    for (const { sector, visible } of before) {
      if (sector.inFlight === 0) sector.durable = union(visible, sector.visible)
    }
  }

  async #read(vdi: ModelVdi | undefined): Promise<void> {
    if (!vdi) return
    const { offset, length } = this.#range()
    await this.#check(vdi, offset, length)
  }

  async #check(vdi: ModelVdi, offset: number, length: number): Promise<void> {
    this.counts.reads++
    const before = [...eachSector(vdi, offset, length)].map((sector) => ({
      allowed: new Set(sector?.visible ?? [0]),
      quiet: sector?.inFlight === 0,
    }))
    const target = await this.#bytes(vdi, offset, length)
    for (let i = 0, at = 0; at < length; i++, at += SECTOR) {
      const found = readStamp(target.subarray(at, at + SECTOR), offset + at)
      const sector = vdi.sectors.get((offset + at) / SECTOR)
      const allowed = union(before[i]!.allowed, sector?.visible ?? new Set([0]))
      if (allowed.has(found)) {
        if (before[i]!.quiet && sector) sector.visible = new Set([found])
        continue
      }
      throw new Error(`${vdi.name}@${vdi.tag} offset ${offset + at}: found ${found}, allowed ${[...allowed]}`)
    }
  }

  async #readAll(): Promise<void> {
    for (const vdi of this.#vdis) await this.#checkAttributes(vdi)
    for (const vdi of this.#vdis) for (const window of WINDOWS) await this.#check(vdi, window, WINDOW_BYTES)
    for (const vdi of this.#vdis) if (vdi.tag !== '') await this.#checkMarks(vdi)
  }

  /** What has a mark that was seen before is what it was then. */
  async #checkMarks(vdi: ModelVdi): Promise<void> {
    const told = await this.clock.run(tellMarks(this.#sheep.state, this.#sheep.node, this.#session(vdi), 0, VDI_BYTES))
    const marks = told.flatMap(([lengthBytes, mark]) => Array<string | null>(lengthBytes / OBJECT_BYTES).fill(mark))
    const windows = WINDOWS.flatMap((start) => [start, start + WINDOW_BYTES / 2])
    for (const [index, mark] of marks.entries()) {
      if (mark === null) throw new Error(`object ${index} of ${vdi.name}@${vdi.tag} has no mark`)
      const parts = windows.filter((start) => Math.floor(start / OBJECT_BYTES) === index)
      const read = parts.map((start) => this.#bytes(vdi, start, WINDOW_BYTES / 2))
      this.marked.see(index, mark, Buffer.concat(await Promise.all(read)))
    }
  }

  #bytes(vdi: ModelVdi, offset: number, length: number): Promise<Buffer> {
    const target = Buffer.alloc(length, 0xee)
    return this.clock.run(
      new Promise((resolve, reject) =>
        this.#session(vdi).read(offset, target, (error) => (error ? reject(error) : resolve(target))),
      ),
    )
  }

  async #create(): Promise<void> {
    if (this.#vdis.length > 8) return
    const name = `vdi-${++this.#names}`
    const { vid } = await this.clock.run(this.#sheep.createVdi(name, VDI_BYTES, 0))
    this.#add({ name, tag: '', vid, session: 0, sectors: new Map(), attributes: new Map() })
  }

  #add(vdi: ModelVdi): void {
    vdi.session = this.#sheep.sessions.openAnonymous(vdi.vid, false).id
    this.#vdis.push(vdi)
  }

  async #snapshot(): Promise<void> {
    const vdi = this.random.pick(this.#working())
    if (!vdi || this.#vdis.length > 8) return
    const tag = `snap-${++this.#names}`
    const sectors = copySectors(vdi.sectors)
    const oldVid = vdi.vid
    const moved = await this.clock.run(this.#sheep.snapshot(oldVid, tag))
    vdi.vid = moved.vid
    // The entry was synced, and everything that the journal held before it.
    for (const sector of sectors.values()) sector.durable = new Set(sector.visible)
    this.counts.snapshots++
    const snapshot = { name: vdi.name, tag, vid: oldVid, session: 0, sectors, attributes: new Map() }
    this.#add(snapshot)
    if (this.random.chance(0.5)) await this.#checkMarks(snapshot)
  }

  async #clone(): Promise<void> {
    const base = this.random.pick(this.#vdis.filter((vdi) => vdi.tag !== ''))
    if (!base || this.#vdis.length > 8) return
    const name = `vdi-${++this.#names}`
    const { vid } = await this.clock.run(this.#sheep.createVdi(name, VDI_BYTES, base.vid))
    this.counts.clones++
    this.#add({ name, tag: '', vid, session: 0, sectors: copySectors(base.sectors), attributes: new Map() })
  }

  async #rollback(): Promise<void> {
    const vdi = this.random.pick(this.#working())
    const snapshot = this.random.pick(this.#vdis.filter((other) => other.tag !== '' && other.name === vdi?.name))
    if (!vdi || !snapshot) return
    await this.#settle() // a write that comes late is refused, as it must be; the model would have to know which
    vdi.vid = (await this.clock.run(this.#sheep.rollbackVdi(vdi.vid, snapshot.vid))).vid
    vdi.sectors = copySectors(snapshot.sectors)
    this.counts.rollbacks++
  }

  async #setAttribute(): Promise<void> {
    const vdi = this.random.pick(this.#vdis)
    if (!vdi) return
    const key = this.random.pick(['colour', 'size'])
    const value = this.random.bytes(this.random.below(10_000))
    await this.clock.run(this.#sheep.attributes.set({ ...vdi, snapId: 0 }, key, value, false))
    vdi.attributes.set(key, value)
  }

  async #checkAttributes(vdi: ModelVdi): Promise<void> {
    for (const [key, value] of vdi.attributes) {
      const attribute = this.#sheep.attributes.get({ ...vdi, snapId: 0 }, key)
      const found = await this.clock.run(this.#sheep.attributes.read(attribute))
      if (!found.equals(value)) throw new Error(`the attribute ${key} of ${vdi.name}@${vdi.tag} is not what was set`)
    }
  }

  /** Machine state is only there to be accounted for: the audit, and nothing left in the end. */
  async #saveMachine(): Promise<void> {
    const vdi = this.random.pick(this.#working())
    if (!vdi) return
    const oid = vmstateOid(vdi.vid, this.random.below(3))
    const body = this.random.bytes(this.random.below(9000))
    const request = { opcode: OP.CREATE_AND_WRITE_OBJ, flags: FLAG.WRITE, oid, offset: this.random.below(5000), body }
    const saved = new Promise<void>((resolve, reject) => {
      this.#submit(request, (error) => (error ? reject(error) : resolve()))
    })
    await this.clock.run(saved)
  }

  async #delete({ quiet = this.random.chance(0.5) } = {}): Promise<void> {
    const vdi = this.random.pick(this.#vdis)
    if (!vdi) return
    await this.#settle()
    const before = quiet ? await this.#usage() : null
    await this.clock.run(this.#sheep.sessions.close(vdi.session))
    const request = { opcode: OP.DEL_VDI, flags: FLAG.WRITE, body: Buffer.alloc(512) }
    request.body.write(vdi.name)
    request.body.write(vdi.tag, 256)
    await this.clock.run(
      new Promise<void>((resolve, reject) => this.#submit(request, (error) => (error ? reject(error) : resolve()))),
    )
    this.#vdis = this.#vdis.filter((other) => other !== vdi)
    this.counts.deletes++
    if (!before) return
    await this.clock.run(this.#sheep.reclaimed())
    const cameBack = before.allocatedBytes - this.#sheep.allocatedBytes
    const { uniqueBytes } = before.usage.get(vdi.vid)!
    if (cameBack !== uniqueBytes) {
      throw new Error(`${vdi.name}@${vdi.tag} had ${uniqueBytes} bytes alone, and ${cameBack} came back when it went`)
    }
  }

  /** What the VDIs take when nothing is under way and nothing to be reclaimed. */
  async #usage() {
    await this.#settle()
    await this.clock.run(this.#sheep.reclaimed())
    for (let looks = 0; ; looks++) {
      const usage = await this.clock.run(this.#sheep.usage())
      const all = [...usage.values()]
      for (const each of all) {
        if (each.uniqueBytes + each.sharedBytes !== each.allocatedBytes) throw new Error('a block is counted twice')
      }
      if (all.every(({ isExact }) => isExact)) return { usage, allocatedBytes: this.#sheep.allocatedBytes }
      if (looks === 100) throw new Error('what a VDI holds alone is never known')
    }
  }

  async #settle(): Promise<void> {
    while (this.#underWay > 0) {
      await new Promise<void>((resolve) => setImmediate(resolve))
      if (this.#underWay > 0 && !this.clock.step()) throw new Error('deadlock: writes that are never answered')
    }
  }

  async #audit() {
    if (this.#finding) throw new Error(`an audit beside I/O found ${this.#finding}`)
    const report = await this.clock.run(this.#sheep.reclaimed().then(() => this.#sheep.audit()))
    const { status } = this.#sheep.scrubber
    if (status.findings + status.lastRoundFindings > 0) throw new Error(`the scrub found ${JSON.stringify(status)}`)
    this.counts.scrubs += status.round
    if (!report.sound) throw new Error(`the audit found ${JSON.stringify(report.problems.slice(0, 3))}`)
    return report
  }

  /** Starts an audit that goes on beside whatever comes. */
  #auditBeside(): void {
    if (this.#isAuditing) return
    this.#isAuditing = true
    this.counts.audits++
    const life = this.#life
    this.#auditing = this.#sheep.audit().then(({ sound, problems }) => {
      if (life !== this.#life) return
      this.#isAuditing = false
      if (!sound) this.#finding = JSON.stringify(problems.slice(0, 3))
    })
    this.#auditing.catch(() => {})
  }

  async #crash(): Promise<void> {
    const power = this.random.chance(0.6)
    if (power) this.disk.powerLoss()
    else this.disk.kill()
    this.counts.crashes++
    this.#life++
    this.#underWay = 0
    this.#isAuditing = false
    this.#auditing = Promise.resolve()
    for (const vdi of this.#vdis) {
      for (const sector of vdi.sectors.values()) {
        if (power) sector.visible = new Set(sector.durable)
        sector.inFlight = 0
        sector.contended = false
      }
    }
    await this.#open()
    await this.#readAll()
    for (const vdi of this.#vdis) for (const sector of vdi.sectors.values()) sector.durable = new Set(sector.visible)
    await this.#audit()
  }
}

function* eachSector(vdi: ModelVdi, offset: number, length: number): Generator<Sector | undefined> {
  for (let at = offset; at < offset + length; at += SECTOR) yield vdi.sectors.get(at / SECTOR)
}

/** The sectors of a range; those that were never written are made only if they are written now. */
function touched(vdi: ModelVdi, offset: number, length: number, make: boolean): Sector[] {
  const found: Sector[] = []
  for (let at = offset; at < offset + length; at += SECTOR) {
    let sector = vdi.sectors.get(at / SECTOR)
    if (!sector && make) {
      sector = { visible: new Set([0]), durable: new Set([0]), inFlight: 0, contended: false }
      vdi.sectors.set(at / SECTOR, sector)
    }
    if (sector) found.push(sector)
  }
  return found
}

function copySectors(sectors: Map<number, Sector>): Map<number, Sector> {
  return new Map(
    [...sectors].map(([at, sector]) => [
      at,
      { visible: new Set(sector.visible), durable: new Set(sector.durable), inFlight: 0, contended: false },
    ]),
  )
}

function union(a: Set<number>, b: Set<number>): Set<number> {
  return new Set([...a, ...b])
}

function stampSector(sector: Buffer, stamp: number, offset: number): void {
  for (const at of [0, SECTOR - 16]) {
    sector.writeUInt32LE(stamp, at)
    sector.writeDoubleLE(offset, at + 8)
  }
}

function readStamp(sector: Buffer, offset: number): number {
  const stamp = sector.readUInt32LE(0)
  for (const at of [0, SECTOR - 16]) {
    if (sector.readUInt32LE(at) !== stamp || sector.readDoubleLE(at + 8) !== (stamp === 0 ? 0 : offset)) {
      throw new Error(`a torn or misplaced sector at ${offset}: ${sector.toString('hex', 0, 16)}`)
    }
  }
  return stamp
}
