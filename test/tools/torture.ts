import assert from 'node:assert'
import type { Result } from '../../src/control/methods.ts'
import { SeededRandom } from '../sim/random.ts'
import { ApiError, CinderApi, type Connected, type Resource } from './cinder-api.ts'
import { Collie } from './collie.ts'
import { Verifier } from './verifier.ts'

export interface TortureOptions {
  seed: number
  kills: number
  durability: 'flush' | 'write'
}

export interface TortureReport {
  kills: number
  /** By moment. */
  killsWhile: Record<Moment, number>
  writesAcknowledged: number
  writesUnanswered: number
  sectorsChecked: number
  snapshotsTaken: number
  snapshotsChecked: number
  checkpoints: number
}

/**
 * When the server is killed: while it is written to and volumes come and go; on its way up; while the disk is checked after
 * a start; and, together with the verifier, while it is written to.
 */
type Moment = 'writing' | 'starting' | 'checking' | 'both'
const MOMENTS: readonly Moment[] = ['writing', 'starting', 'writing', 'checking', 'both', 'starting']

const SIZE_GIB = 1
const WRITING_MS_MAX = 1500
const STARTING_MS_MAX = 900
const CHECKING_MS_MAX = 80
const SNAPSHOTS_MAX = 4
const CLONES_MAX = 3

/**
 * Kills a server again and again and finds out each time whether all is there that was promised. Rejects with the first
 * promise that was broken; the data directory then stays for who wants to know why.
 */
export async function torture(options: TortureOptions): Promise<TortureReport> {
  const collie = await Collie.create(`--durability=${options.durability}`, '--journal-size-mib=16')
  const run = new Torture(collie, options)
  try {
    const report = await run.toTheEnd()
    await collie.dispose()
    return report
  } catch (error) {
    const { seed, kills } = options
    const where = `${(error as Error).message} (seed ${seed}, after ${run.report.kills} of ${kills} kills; see ${collie.file('')})`
    throw new Error(`${where}\n${collie.tailOfLog()}`, { cause: error })
  } finally {
    await run.verifier.kill()
    if (collie.isRunning) await collie.kill('SIGKILL')
  }
}

class Torture {
  readonly report: TortureReport = {
    kills: 0,
    killsWhile: { writing: 0, starting: 0, checking: 0, both: 0 },
    writesAcknowledged: 0,
    writesUnanswered: 0,
    sectorsChecked: 0,
    snapshotsTaken: 0,
    snapshotsChecked: 0,
    checkpoints: 0,
  }
  verifier: Verifier
  readonly #collie: Collie
  readonly #options: TortureOptions
  readonly #random: SeededRandom
  #names = 0

  constructor(collie: Collie, options: TortureOptions) {
    this.#collie = collie
    this.#options = options
    this.#random = new SeededRandom(options.seed)
    this.verifier = this.#newVerifier()
  }

  async toTheEnd(): Promise<TortureReport> {
    await this.#collie.start()
    const api = new CinderApi(`${this.#collie.dataDir}/openrc`)
    const volumeId = await api.createVolume({ size: SIZE_GIB })
    await api.until('volume', volumeId, 'available')
    const attached = await api.attach(volumeId)
    while (this.report.kills < this.#options.kills) {
      const moment = MOMENTS[this.report.kills % MOMENTS.length]!
      await this.#killWhile(moment, api, attached)
      this.report.kills++
      this.report.killsWhile[moment]++
      if (MOMENTS[this.report.kills % MOMENTS.length] !== 'starting') await this.#start()
    }
    if (!this.#collie.isRunning) await this.#start()
    await this.#checkEverything(api, attached)
    await this.#leaveNothing(api, attached.id)
    return this.report
  }

  /** Starts the server; what is there must be whole before anything else is done to it. */
  async #start(): Promise<void> {
    await this.#collie.start()
    await this.#audit()
  }

  async #audit(): Promise<Result<'audit'>> {
    const audit = await this.#collie.ask<Result<'audit'>>('cluster', 'audit')
    assert.deepEqual(audit.findings, [])
    return audit
  }

  async #killWhile(moment: Moment, api: CinderApi, attached: Connected): Promise<void> {
    if (moment === 'starting') {
      if (this.#collie.isRunning) await this.#collie.kill('SIGKILL')
      this.#collie.begin()
      await this.#pause(STARTING_MS_MAX)
    } else if (moment === 'checking') {
      const checked = this.verifier.run(attached)
      checked.catch(() => {}) // told below, whenever it comes
      await this.#pause(CHECKING_MS_MAX)
      await this.#collie.kill('SIGKILL')
      await checked
    } else {
      await this.#reconcile(api, attached)
      assert(await this.verifier.run(attached), 'the connection was lost although the server lives')
      const changes = this.#changeVolumes(api, attached.volumeId)
      changes.catch(() => {}) // told below, whenever it comes
      await this.#pause(WRITING_MS_MAX)
      await this.#countCheckpoints()
      await this.#collie.kill('SIGKILL')
      await changes
      if (moment === 'both') await this.#replaceVerifier()
    }
    await this.#collie.kill('SIGKILL')
  }

  /** The moment is what chance decides here, not an event. */
  #pause(maxMs: number): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, this.#random.below(maxMs)))
  }

  async #countCheckpoints(): Promise<void> {
    const { store } = await this.#collie.ask<Result<'stats'>>('node', 'stats')
    this.report.checkpoints += store!.checkpoints!
  }

  #newVerifier(): Verifier {
    const ledgerPath = this.#collie.file('ledger')
    return new Verifier({ seed: this.#random.below(2 ** 31), ledgerPath, sizeBytes: SIZE_GIB * 1024 ** 3 })
  }

  async #replaceVerifier(): Promise<void> {
    await this.#count()
    await this.verifier.kill()
    this.verifier = this.#newVerifier()
  }

  async #count(): Promise<void> {
    const { writes, unanswered, sectorsChecked } = await this.verifier.tally()
    this.report.writesAcknowledged += writes
    this.report.writesUnanswered += unanswered
    this.report.sectorsChecked += sectorsChecked
  }

  /** Brings the ledger up to date with what the last kill left of snapshots and clones, all of which must be at rest. */
  async #reconcile(api: CinderApi, attached: Connected): Promise<void> {
    for (const { id } of await api.attachments()) if (id !== attached.id) await api.detach(id)
    const { volumes, snapshots } = await api.settled()
    for (const { id, name, status } of volumes) {
      assert.equal(status, id === attached.volumeId ? 'in-use' : 'available', `volume ${name} ${id}`)
    }
    for (const { name, status } of snapshots) assert.equal(status, 'available', `snapshot ${name}`)
    for (const { name, isOpen } of await this.verifier.marks()) {
      const isTaken = snapshots.some((snapshot) => snapshot.name === name)
      const isCloned = volumes.some((volume) => snapshotOf(volume) === name)
      if (isOpen && isTaken) await this.verifier.unmark(name)
      else if (!isTaken && !isCloned) await this.verifier.dropMark(name)
    }
  }

  /** Takes snapshots, makes clones of them, checks and deletes both, until the server goes away. */
  async #changeVolumes(api: CinderApi, volumeId: string): Promise<void> {
    try {
      for (;;) await this.#change(api, volumeId)
    } catch (error) {
      if (!isLostConnection(error)) throw error
    }
  }

  async #change(api: CinderApi, volumeId: string): Promise<void> {
    const snapshots = await api.list('snapshot')
    const clones = (await api.list('volume')).filter(({ id }) => id !== volumeId)
    const random = this.#random
    const changes: (() => Promise<unknown>)[] = []
    if (snapshots.length < SNAPSHOTS_MAX) changes.push(() => this.#takeSnapshot(api, volumeId))
    if (snapshots.length > 0) {
      changes.push(() => deleteOne(api, 'snapshot', random.pick(snapshots).id))
      if (clones.length < CLONES_MAX) changes.push(() => this.#clone(api, random.pick(snapshots)))
    }
    if (clones.length > 0) {
      changes.push(() => deleteOne(api, 'volume', random.pick(clones).id))
      changes.push(() => this.#checkClone(api, random.pick(clones)))
    }
    await random.pick(changes)()
  }

  async #takeSnapshot(api: CinderApi, volumeId: string): Promise<void> {
    const name = `snapshot-${++this.#names}`
    await this.verifier.mark(name)
    await api.until('snapshot', await api.createSnapshot(volumeId, name), 'available')
    await this.verifier.unmark(name)
    this.report.snapshotsTaken++
  }

  async #clone(api: CinderApi, snapshot: Resource): Promise<Resource> {
    const name = `clone-${++this.#names}-of-${snapshot.name}`
    const id = await api.createVolume({ name, size: SIZE_GIB, snapshot_id: snapshot.id })
    await api.until('volume', id, 'available')
    return { id, name, status: 'available' }
  }

  async #checkClone(api: CinderApi, clone: Resource): Promise<void> {
    const attached = await api.attach(clone.id, 'ro')
    if (!(await this.verifier.checkSnapshot(snapshotOf(clone)!, attached))) return // the next request says so, too
    this.report.snapshotsChecked++
    await api.detach(attached.id)
  }

  async #checkEverything(api: CinderApi, attached: Connected): Promise<void> {
    await this.#reconcile(api, attached)
    assert(await this.verifier.run(attached))
    await this.#takeSnapshot(api, attached.volumeId)
    await this.verifier.pause()
    assert(await this.verifier.run(attached))
    await this.verifier.pause()
    for (const snapshot of await api.list('snapshot')) await this.#checkClone(api, await this.#clone(api, snapshot))
    await this.#count()
  }

  /** Deletes all there is: the store must then be sound and empty, and stay so. */
  async #leaveNothing(api: CinderApi, attachmentId: string): Promise<void> {
    await api.detach(attachmentId)
    assert.deepEqual(await api.attachments(), [])
    for (const { id } of await api.list('snapshot')) await deleteOne(api, 'snapshot', id)
    for (const { id } of await api.list('volume')) await deleteOne(api, 'volume', id)
    assert.deepEqual(await api.settled(), { volumes: [], snapshots: [] })
    assert.equal((await this.#audit()).checked.objects, 0)
    assert.equal(await this.#collie.kill('SIGTERM'), 0)
    await this.#collie.start()
    assert.equal((await this.#audit()).checked.objects, 0)
  }
}

const snapshotOf = ({ name }: Resource) => /^clone-\d+-of-(.*)$/.exec(name)?.[1]

async function deleteOne(api: CinderApi, kind: 'volume' | 'snapshot', id: string): Promise<void> {
  await api.delete(kind, id)
  await api.untilGone(kind, id)
}

function isLostConnection(error: unknown): boolean {
  if (error instanceof ApiError || !(error instanceof Error)) return false
  return ['ECONNREFUSED', 'ECONNRESET', 'EPIPE'].includes((error as NodeJS.ErrnoException).code ?? '')
}
