import assert from 'node:assert'
import { createHash } from 'node:crypto'

/** What was ever found under a mark, at which object: nothing else may be found there again, however much has happened since. */
export class MarkedContents {
  readonly #found = new Map<string, string>()
  readonly #marksOfVid = new Map<string, Set<string>>()
  /** How often something was found once more under a mark that a deleted or another snapshot had. */
  again = 0

  see(index: number, mark: string, bytes: Buffer): void {
    const key = `${index}:${mark}`
    const digest = createHash('sha256').update(bytes).digest('hex')
    const before = this.#found.get(key)
    assert(before === undefined || before === digest, `object ${index} under ${mark} has changed`)
    if (before === undefined) this.#found.set(key, digest)
    else this.again++
    const vid = mark.split('.')[1] ?? 'none'
    this.#marksOfVid.set(vid, (this.#marksOfVid.get(vid) ?? new Set()).add(mark))
  }

  /** Vids that several VDIs have had, one after the other, that were frozen. */
  get reusedVids(): number {
    return [...this.#marksOfVid.values()].filter((marks) => marks.size > 1).length
  }
}
