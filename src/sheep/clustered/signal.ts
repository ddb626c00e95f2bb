/** Something that changes now and then, and that others wait for. */
export class Signal {
  #next: Promise<void>
  #resolve: () => void = () => {}

  constructor() {
    this.#next = this.#make()
  }

  /** Resolves with the next `tell`. */
  get next(): Promise<void> {
    return this.#next
  }

  tell(): void {
    this.#resolve()
    this.#next = this.#make()
  }

  #make(): Promise<void> {
    return new Promise((resolve) => {
      this.#resolve = resolve
    })
  }
}
