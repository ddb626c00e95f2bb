/** How long clients waited, by the kind of fault that was going on. */
export class Stalls {
  readonly #byKind = new Map<string, number[]>()

  add(kind: string, ms: number): void {
    const known = this.#byKind.get(kind)
    if (known) known.push(ms)
    else this.#byKind.set(kind, [ms])
  }

  /** `medianMs` and `maxMs` are of the longest wait in each fault of the kind. */
  table(): { kind: string; faults: number; medianMs: number; maxMs: number }[] {
    return [...this.#byKind].map(([kind, all]) => {
      const sorted = all.toSorted((a, b) => a - b)
      const medianMs = sorted[Math.floor((sorted.length - 1) / 2)]!
      return { kind, faults: sorted.length, medianMs, maxMs: sorted.at(-1)! }
    })
  }
}
