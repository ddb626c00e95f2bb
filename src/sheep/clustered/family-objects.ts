import { oidVid } from '../../protocol/oid.ts'
import type { StoreDone } from '../change.ts'
import type { CopySequencer } from '../copies/copy-sequencer.ts'
import type { View } from '../membership/view.ts'
import type {
  BlockContents,
  BlockRange,
  FoundObjects,
  ObjectContents,
  ObjectLayout,
  ReplicatedObjects,
  WriteOptions,
} from '../replicated/replicated-objects.ts'

export interface FamilyObjectsOptions {
  sequencerFor(vid: number): CopySequencer
  /** Resolves when this node held a lease, and owned the family, at a moment after it was asked. */
  confirm(): Promise<void>
}

/** The objects of a family's VDIs, each of which has a sequencer of its own for its copies. */
export class FamilyObjects implements ReplicatedObjects {
  readonly #options: FamilyObjectsOptions
  readonly #sequencers = new Map<number, CopySequencer>()

  constructor(options: FamilyObjectsOptions) {
    this.#options = options
  }

  write(oid: bigint, contents: BlockContents, options: WriteOptions): Promise<void> {
    return this.of(oidVid(oid)).write(oid, contents, options)
  }

  writeNow(oid: bigint, contents: BlockContents, durable: boolean, done: StoreDone): boolean {
    return this.of(oidVid(oid)).writeNow(oid, contents, durable, done)
  }

  readNow(oid: bigint, first: number, target: Buffer, done: (isRead: boolean) => void): boolean {
    return this.of(oidVid(oid)).readNow(oid, first, target, done)
  }

  async read(oid: bigint, range: BlockRange): Promise<ObjectContents> {
    const { blocks, zeros, inherited } = await this.of(oidVid(oid)).read(oid, range)
    return { blocks, zeros, inherited: inherited?.ranges ?? [], base: inherited?.base ?? null }
  }

  making(oid: bigint): () => void {
    return this.of(oidVid(oid)).making()
  }

  async layoutOf(oid: bigint): Promise<ObjectLayout> {
    const { data, inherited } = await this.of(oidVid(oid)).layout(oid)
    return { data, inherited: inherited?.ranges ?? [], base: inherited?.base ?? null }
  }

  remove(oid: bigint): Promise<void> {
    return this.of(oidVid(oid)).remove(oid)
  }

  async flush(): Promise<void> {
    await Promise.all([...this.#sequencers.values()].map((sequencer) => sequencer.flush()))
  }

  confirm(): Promise<void> {
    return this.#options.confirm()
  }

  objectsOf(vid: number): Promise<FoundObjects> {
    return this.of(vid).list()
  }

  of(vid: number): CopySequencer {
    const known = this.#sequencers.get(vid)
    if (known) return known
    const sequencer = this.#options.sequencerFor(vid)
    this.#sequencers.set(vid, sequencer)
    return sequencer
  }

  /** How often a copy of any of them was found to lack what it should have. */
  get setbacks(): number {
    return [...this.#sequencers.values()].reduce((sum, { setbacks }) => sum + setbacks, 0)
  }

  /** See CopySequencer. */
  wereComplete(epoch: number): void {
    for (const sequencer of this.#sequencers.values()) sequencer.wasComplete(epoch)
  }

  viewsChanged(views: readonly View[]): void {
    for (const sequencer of this.#sequencers.values()) sequencer.viewsChanged(views)
  }

  spreadWatermarks(): void {
    for (const sequencer of this.#sequencers.values()) sequencer.spreadWatermark()
  }

  end(): void {
    for (const sequencer of this.#sequencers.values()) sequencer.end()
  }
}
