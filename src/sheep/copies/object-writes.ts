import { StoreError } from '../../errors.ts'
import type { StoreDone } from '../change.ts'
import type { Member } from '../membership/view.ts'
import { BLOCK_BYTES } from '../object-format.ts'
import { ALL_BLOCKS, type Blocks, blocksOf, covers, rangeOf, subtract, toBlocks } from './block-ranges.ts'
import { type BlockContents, copyWrite } from './copy-store.ts'
import type { Holders } from './holders.ts'
import type { CopyRequest } from './messages.ts'
import type { News } from './news.ts'
import { type OwnedObject, PendingWrite, type Writing } from './owned-object.ts'
import type { Version } from './version.ts'
import type { WriteVersions } from './write-versions.ts'

export interface ObjectWritesOptions {
  holders: Holders
  versions: WriteVersions
  news: News
  /** The object cannot go on as it is. */
  reopen(object: OwnedObject): void
}

/**
 * Brings writes to all acting copies of open objects. A write is done when all have it but those that are stale on their disks, and
 * at least as many as the view takes; until then it is sent again after each open.
 */
export class ObjectWrites {
  readonly #options: ObjectWritesOptions

  constructor(options: ObjectWritesOptions) {
    this.#options = options
  }

  /** Whether all acting copies have space for the contents; null when one of them does not say. */
  reserve(object: OwnedObject, contents: BlockContents): Promise<boolean | null> {
    const reserved = object.reserving.then(() => this.#askToReserve(object, toBlocks(contents.blocks.map(rangeOf))))
    object.reserving = reserved
    return reserved
  }

  async #askToReserve(object: OwnedObject, blocks: Blocks): Promise<boolean | null> {
    const { oid, term } = object
    const wanted = subtract(blocks, object.roomy)
    if (wanted.length === 0) return true
    const { holders } = this.#options
    const answers = await Promise.all(
      [...object.acting.values()].map(({ member }) => holders.ask(member, { type: 'reserve', oid, blocks: wanted })),
    )
    if (answers.includes(null) || object.term !== term) return null
    if (answers.some((answer) => answer?.refused)) return false
    object.roomy = toBlocks([...object.roomy, ...wanted])
    return true
  }

  /** Whether a write can begin, with nothing to ask before. */
  isReadyFor(object: OwnedObject, { blocks, zeros }: BlockContents): boolean {
    const { holders } = this.#options
    if (!object.isOpen || !object.exists || object.removals > 0 || object.acting.size < holders.copiesMin) return false
    return (
      zeros.length === 0 && blocks.every(({ first, bytes }) => covers(object.roomy, first, bytes.length / BLOCK_BYTES))
    )
  }

  /** `done` is called later, when it is done. */
  begin(object: OwnedObject, writing: Writing, done: StoreDone): void {
    const { holders, versions } = this.#options
    const version = versions.next(holders.generation)
    const write = new PendingWrite(writing, version, done)
    object.pending.push(write)
    this.#send(object, write, version)
  }

  /**
   * Sends again what was under way, before anything else is done with the object. What there is no space for any more fails. False
   * when not all is known that it takes.
   */
  async resume(object: OwnedObject, isStill: () => boolean): Promise<boolean> {
    const { holders, versions } = this.#options
    if (object.pending.length > 0 && object.acting.size < holders.copiesMin) return false
    for (const write of [...object.pending]) {
      const isReserved = write.contents === null || (await this.reserve(object, write.contents))
      if (isReserved === null || !isStill()) return false
      if (isReserved) continue
      object.pending.splice(object.pending.indexOf(write), 1)
      versions.finish(write.version)
      write.settle(new StoreError('Unsure'))
    }
    object.isOpen = true
    for (const write of object.pending) this.#send(object, write, versions.next(holders.generation))
    return true
  }

  #send(object: OwnedObject, write: PendingWrite, version: Version): void {
    const { holders, versions } = this.#options
    if (write.version !== version) versions.finish(write.version)
    write.version = version
    write.waiting.clear()
    for (const node of object.acting.keys()) write.waiting.add(node)
    const { oid } = object
    const previous = object.version
    object.version = write.contents ? version : null
    const contents = previous === null ? madeOf(write) : write.contents
    const zeros = write.contents?.zeros ?? ALL_BLOCKS
    if (zeros.length > 0) object.roomy = subtract(object.roomy, zeros) // they give space back
    const { generation } = holders
    const watermark = versions.watermark(generation)
    const { vid } = holders
    const request: CopyRequest = contents
      ? {
          type: 'write',
          vid,
          generation,
          write: copyWrite({ oid, version, previous }, contents),
          durable: write.durable,
          watermark,
        }
      : { type: 'remove', vid, generation, oid, version }
    const sendTo = (member: Member) => {
      if (!write.durable) holders.unsynced.set(member.node, version.sequence)
      holders.send(member, request, (answer) => {
        if (write.version !== version) return
        if (answer === null) return void this.#tryAgain(object, write, version)
        write.waiting.delete(member.node)
        if (answer.refused) object.acting.delete(member.node)
        this.#finishIfDone(object, write)
      })
    }
    let near: Member | null = null
    for (const { member } of object.acting.values()) {
      if (holders.isNear(member)) near = member
      else sendTo(member)
    }
    if (near) sendTo(near) // while the others are at it
  }

  /** There should be another view; if there is none after a while, who did not answer is asked again. */
  async #tryAgain(object: OwnedObject, write: PendingWrite, version: Version): Promise<void> {
    const { news, reopen } = this.#options
    await news.wait(news.next)
    if (write.version === version && object.pending.includes(write)) reopen(object)
  }

  #finishIfDone(object: OwnedObject, write: PendingWrite): void {
    if (!object.isOpen || write.waiting.size > 0) return
    const place = object.pending.indexOf(write)
    if (place < 0) return
    if (object.acting.size < this.#options.holders.copiesMin) return this.#options.reopen(object)
    object.pending.splice(place, 1)
    if (write.contents) {
      if (object.removals === 0) object.exists = true
      object.wrote(write.blocks)
    }
    object.isUndecided = false
    this.#options.versions.finish(write.version)
    write.settle(null)
  }

  /** After a clean entry, who is no target of any view since takes no part any more. */
  forgetHolders(object: OwnedObject): void {
    const possible = this.#options.holders.possible(object.oid)
    for (const node of object.acting.keys()) {
      if (possible.some((member) => member.node === node)) continue
      object.acting.delete(node)
      for (const write of object.pending) write.waiting.delete(node)
    }
    for (const write of [...object.pending]) this.#finishIfDone(object, write)
  }
}

/** All of an object that a write makes. */
function madeOf({ contents, base }: PendingWrite): BlockContents | null {
  if (!contents || base === null) return contents
  return { ...contents, inherited: { base, ranges: subtract(ALL_BLOCKS, blocksOf(contents)) } }
}
