import { dataOid } from '../../../src/protocol/oid.ts'
import { CopyHolder } from '../../../src/sheep/copies/copy-holder.ts'
import { CopySequencer } from '../../../src/sheep/copies/copy-sequencer.ts'
import type { CopyAnswer, CopyRequest } from '../../../src/sheep/copies/messages.ts'
import type { Member, View } from '../../../src/sheep/membership/view.ts'
import { BLOCK_BYTES } from '../../../src/sheep/object-format.ts'
import { SimClock } from '../../sim/clock.ts'
import { SeededRandom } from '../../sim/random.ts'
import { answerOf } from './answer-of.ts'
import { SimCopyDisk, SimCopyStore } from './sim-copy-store.ts'

export const VID = 7
export const OID = dataOid(VID, 1)
const member = (node: string): Member => ({ node, incarnation: `${node}.1`, address: node, zone: 0, vnodes: 1 })
export const view = (epoch: number, nodes: string): View => ({
  epoch,
  members: [...nodes].map(member),
  voters: [...nodes],
  at: 0,
})

/** Nodes A to F, of whom those in a view are all targets, and owners that follow each other. */
export class CopiesBench {
  readonly #random = new SeededRandom(1)
  readonly #root = new SimClock(this.#random)
  readonly #clock = this.#root.mount()
  readonly disks = new Map([...'ABCDEF'].map((node) => [node, new SimCopyDisk(this.#random)]))
  readonly #holders = new Map(
    [...this.disks].map(([node, disk]) => [node, new CopyHolder(new SimCopyStore(disk, this.#clock, this.#random, 2))]),
  )
  #index = 0
  /** Requests that are lost on their way. */
  isLost = (_node: string, _request: CopyRequest) => false
  /** What the answer to a request waits for. */
  delay = (_node: string, _request: CopyRequest): Promise<void> | null => null
  targetsIn = ({ members }: View): string[] => members.map(({ node }) => node)

  owner(...views: View[]): CopySequencer {
    return new CopySequencer({
      vid: VID,
      index: ++this.#index,
      incarnation: 'A.1',
      views,
      copiesMinIn: () => 2,
      targetsOf: (_oid, view) => this.targetsIn(view),
      send: (to, request, done) => void this.#ask(to.node, request).then(done, done),
      readNow: () => false,
      mayAct: () => true,
      suspect: () => {},
      clock: this.#clock,
    })
  }

  async #ask(node: string, request: CopyRequest): Promise<CopyAnswer> {
    if (this.isLost(node, request)) throw new Error('no answer')
    const answer = await answerOf(this.#holders.get(node)!, request)
    await this.delay(node, request)
    return answer
  }

  run<T>(work: Promise<T>): Promise<T> {
    return this.#root.run(work)
  }

  pass(ms: number): Promise<void> {
    return this.run(this.#clock.sleep(ms))
  }

  /** What a node has in a block, on its disk. */
  bytesOn(node: string, { first }: { first: number }): string {
    return textOf(this.disks.get(node)!.bytesOf(OID, first))
  }

  rot(node: string, { first }: { first: number }): void {
    const disk = this.disks.get(node)!
    disk.rotten.add(disk.bytesOf(OID, first)!)
  }

  write(owner: CopySequencer, { first }: { first: number }, text: string, exists = true): Promise<void> {
    const bytes = Buffer.alloc(BLOCK_BYTES)
    bytes.write(text)
    return owner.write(OID, { blocks: [{ first, bytes }], zeros: [] }, { exists })
  }

  read(owner: CopySequencer, range: { first: number; count: number }): Promise<string> {
    return this.run(this.readText(owner, range))
  }

  /** For who runs the clock. */
  async readText(owner: CopySequencer, range: { first: number; count: number }): Promise<string> {
    const { blocks } = await owner.read(OID, range)
    return blocks.map(({ bytes }) => textOf(bytes)).join()
  }

  /** Until the copies of all targets are whole. */
  async recover(owner: CopySequencer): Promise<void> {
    while (!owner.isComplete(OID)) await this.run(owner.fill(OID, 64))
  }
}

const textOf = (bytes: Buffer | undefined) => bytes?.toString().replaceAll('\0', '') ?? ''
