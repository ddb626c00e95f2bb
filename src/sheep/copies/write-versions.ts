import type { Generation, Version } from './version.ts'

/** Numbers what an owner writes, and knows how far all of it is everywhere. */
export class WriteVersions {
  #last = 0
  /** Given away and not done, in order: the watermark stays below them. */
  readonly #unfinished = new Set<number>()
  #saidWatermark = 0

  get last(): number {
    return this.#last
  }

  next(generation: Generation): Version {
    const sequence = ++this.#last
    this.#unfinished.add(sequence)
    return { generation, sequence }
  }

  /** It is everywhere, or will never be anywhere. */
  finish({ sequence }: Version): void {
    this.#unfinished.delete(sequence)
  }

  /** Another generation begins: what was under way is sent again under new numbers. */
  restart(): void {
    this.#unfinished.clear()
  }

  /** Null before the first write. */
  watermark(generation: Generation): Version | null {
    const [oldest] = this.#unfinished
    const sequence = oldest === undefined ? this.#last : oldest - 1
    return sequence > 0 ? { generation, sequence } : null
  }

  /** The watermark, if it is not the one of the last call. */
  newWatermark(generation: Generation): Version | null {
    const watermark = this.watermark(generation)
    if (!watermark || watermark.sequence === this.#saidWatermark) return null
    this.#saidWatermark = watermark.sequence
    return watermark
  }
}
