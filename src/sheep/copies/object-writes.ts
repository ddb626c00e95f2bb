import { StoreError } from '../../errors.ts'
import { ALL_BLOCKS, type Blocks, blocksOf, rangeOf, subtract, toBlocks } from './block-ranges.ts'
import type { BlockContents } from './copy-store.ts'
import { deferred } from './deferred.ts'
import type { Holders } from './holders.ts'
import type { News } from './news.ts'
import type { OwnedObject, PendingWrite } from './owned-object.ts'
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

  /** Resolves when it is done. */
  begin(
    object: OwnedObject,
    contents: BlockContents | null,
    { durable, base }: { durable: boolean; base: bigint | null },
  ): Promise<void> {
    const { holders, versions } = this.#options
    const version = versions.next(holders.generation)
    const blocks = contents ? blocksOf(contents) : ALL_BLOCKS
    const settled = deferred()
    const write = { contents, base, blocks, durable, version, waiting: new Set<string>(), settled }
    object.pending.push(write)
    this.#send(object, write, version)
    return settled.promise
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
      write.settled.reject(new StoreError('Unsure'))
    }
    object.isOpen = true
    for (const write of object.pending) this.#send(object, write, versions.next(holders.generation))
    return true
  }

  #send(object: OwnedObject, write: PendingWrite, version: Version): void {
    const { holders, versions } = this.#options
    if (write.version !== version) versions.finish(write.version)
    write.version = version
    write.waiting = new Set(object.acting.keys())
    const { oid } = object
    const previous = object.version
    object.version = write.contents ? version : null
    const contents = previous === null ? madeOf(write) : write.contents
    object.roomy = subtract(object.roomy, write.contents?.zeros ?? ALL_BLOCKS) // zeros give space back
    const watermark = versions.watermark(holders.generation)
    for (const { member } of [...object.acting.values()]) {
      if (!write.durable) holders.unsynced.set(member.node, version.sequence)
      const sent = contents
        ? holders.ask(member, {
            type: 'write',
            write: { ...contents, oid, version, previous },
            durable: write.durable,
            watermark,
          })
        : holders.ask(member, { type: 'remove', oid, version })
      void sent.then((answer) => {
        if (write.version !== version) return
        if (answer === null) return this.#tryAgain(object, write, version)
        write.waiting.delete(member.node)
        if (answer.refused) object.acting.delete(member.node)
        this.#finishIfDone(object, write)
      })
    }
  }

  /** There should be another view; if there is none after a while, who did not answer is asked again. */
  async #tryAgain(object: OwnedObject, write: PendingWrite, version: Version): Promise<void> {
    const { news, reopen } = this.#options
    await news.wait(news.next)
    if (write.version === version && object.pending.includes(write)) reopen(object)
  }

  #finishIfDone(object: OwnedObject, write: PendingWrite): void {
    if (!object.isOpen || write.waiting.size > 0 || !object.pending.includes(write)) return
    if (object.acting.size < this.#options.holders.copiesMin) return this.#options.reopen(object)
    object.pending.splice(object.pending.indexOf(write), 1)
    if (write.contents) {
      if (object.removals === 0) object.exists = true
      object.wrote(write.blocks)
    }
    object.isUndecided = false
    this.#options.versions.finish(write.version)
    write.settled.resolve()
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
