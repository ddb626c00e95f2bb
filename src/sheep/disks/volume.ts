/**
 * The space of one file system, which several disks of a store may share. What the journal holds and no object file has
 * yet is promised: it is charged when a change is accepted, so that its checkpoint finds room.
 */
export class Volume {
  readonly device: string
  totalBytes = 0
  freeBytes = 0
  /** Bytes by the generation of the journal that they are promised to. */
  readonly #promised = new Map<number, number>()

  constructor(device: string) {
    this.device = device
  }

  promise(generation: number, bytes: number): void {
    this.#promised.set(generation, (this.#promised.get(generation) ?? 0) + bytes)
  }

  /** The object files have what was promised to the generation. */
  settle(generation: number): void {
    this.#promised.delete(generation)
  }

  /** What may still be promised; below zero when there is less than that. */
  get unpromisedBytes(): number {
    let bytes = this.freeBytes
    for (const promised of this.#promised.values()) bytes -= promised
    return bytes
  }
}
