import { StoreError } from '../../../src/errors.ts'
import { dataOid, inodeOid } from '../../../src/protocol/oid.ts'
import type { Clock } from '../../../src/runtime/clock.ts'
import { recover } from '../../../src/sheep/copies/copy-recovery.ts'
import { CopySequencer } from '../../../src/sheep/copies/copy-sequencer.ts'
import type { BlockContents, BlockRange, BlockRun } from '../../../src/sheep/copies/copy-store.ts'
import type { Member, View } from '../../../src/sheep/membership/view.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import type { CopyModel, Node } from './copy-model.ts'

/** The one that all is about. */
export const VID = 7
const INODE = inodeOid(VID)

/** An owner of the VDI: the map of its objects in the first block of the inode, and what clients ask. */
export class ModelOwner {
  readonly #model: CopyModel
  readonly #sequencer: CopySequencer
  readonly #mapped: Promise<Set<bigint>>
  #map = new Set<bigint>()
  /** New objects come one after the other. */
  #making: Promise<unknown> = Promise.resolve()

  constructor(
    model: CopyModel,
    node: Node,
    { views, owner }: { views: readonly View[]; owner: { index: number; member: Member } },
  ) {
    this.#model = model
    const { index } = owner
    const { clock } = node.process!
    this.#sequencer = new CopySequencer({
      vid: VID,
      index,
      incarnation: owner.member.incarnation,
      copiesMin: 2,
      views,
      targetsOf: (oid, view) => model.targetsOf(oid, view),
      ask: (to, request) => model.ask(node, to, request),
      mayAct: () => model.mayAct(node),
      suspect: (member) => model.suspect(node, member),
    })
    this.#mapped = this.#load(clock)
    this.#mapped.catch(() => {})
    const objects = () => [INODE, ...this.#map]
    const cleanUp = async (): Promise<never> => {
      await this.#mapped
      for (;;) {
        try {
          const epoch = await recover({ sequencer: this.#sequencer, objects, clock, bytesPerSecond: 64 << 20 })
          model.proposeClean(node, epoch, index)
        } catch (error) {
          if (!(error instanceof StoreError) || error.code === 'OldEpoch') throw error
        }
        await clock.sleep(1000)
        this.#sequencer.spreadWatermark()
      }
    }
    cleanUp().catch((error: Error) => {
      if (!(error instanceof StoreError)) throw error
    })
  }

  viewsChanged(views: readonly View[]): void {
    this.#sequencer.viewsChanged(views)
  }

  end(): void {
    this.#sequencer.end()
  }

  maps(oid: bigint): boolean {
    return this.#map.has(oid)
  }

  async write(index: number, run: BlockRun): Promise<void> {
    const oid = dataOid(VID, index)
    await this.#mapped
    const contents = { blocks: [run], zeros: [] }
    if (this.#map.has(oid)) return this.#sequencer.write(oid, contents, { durable: this.#model.isDurable })
    const made = this.#making.then(() => this.#make(oid, contents))
    this.#making = made.catch(() => {})
    return made
  }

  async read(index: number, range: BlockRange): Promise<BlockContents> {
    const oid = dataOid(VID, index)
    await this.#mapped
    if (this.#map.has(oid)) return this.#sequencer.read(oid, range)
    await this.#sequencer.read(INODE, { first: 0, count: 1 }) // that nobody else has made it
    return { blocks: [], zeros: [range] }
  }

  async flush(): Promise<void> {
    await this.#mapped
    return this.#sequencer.flush()
  }

  /** The object first, then its place in the map. */
  async #make(oid: bigint, contents: BlockContents): Promise<void> {
    if (this.#map.has(oid)) return this.#sequencer.write(oid, contents, { durable: this.#model.isDurable })
    await this.#sequencer.write(oid, contents, { exists: false })
    const bytes = Buffer.alloc(BLOCK_BYTES)
    bytes.write([...this.#map, oid].join(' '))
    await this.#sequencer.write(INODE, { blocks: [{ first: 0, bytes }], zeros: [] }).catch((error: StoreError) => {
      throw new StoreError('Unsure', undefined, { cause: error }) // the object is there
    })
    this.#map.add(oid)
  }

  async #load(clock: Clock): Promise<Set<bigint>> {
    const inode = await this.#sequencer.read(INODE, { first: 0, count: 1 }).catch((error: StoreError) => {
      if (error.code !== 'Unsure') throw error
    })
    if (!inode) {
      await clock.sleep(100) // there is no lease yet
      return this.#load(clock)
    }
    const text = inode.blocks[0]?.bytes.toString().replaceAll('\0', '') ?? ''
    this.#map = new Set(text.split(' ').filter(Boolean).map(BigInt))
    return this.#map
  }
}
