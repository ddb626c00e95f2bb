/**
 * Shares the memory for data among all connections of a server.
 *
 * 1. Each connection has a little of its own, enough for small requests. It is always to be had, so a client that holds
 *    the rest and does not let go slows down large transfers of others, and nothing else.
 * 2. What a connection holds beyond that is drawn from what all have in common. Who does not get it waits; those who
 *    wait are served in the order they came, whatever they want, so that a large request is not starved by small ones.
 * 3. Memory for a request is taken whole before its first byte: nobody holds half of one while waiting for the rest.
 * 4. A request that is larger than everything is served when nobody else draws.
 */
export class MemoryBudget {
  private readonly commonBytesMax: number
  readonly ownBytes: number
  /** Drawn by all connections beyond what is their own. */
  drawnBytes = 0
  /** In the order they came. */
  private readonly waiting = new Set<MemoryShare>()

  constructor(options: { commonBytesMax: number; ownBytes: number }) {
    this.commonBytesMax = options.commonBytesMax
    this.ownBytes = options.ownBytes
  }

  /** The share of a new connection. `granted` is told when what `take` refused can be taken; it must not call back. */
  share(granted: () => void): MemoryShare {
    return new MemoryShare(this, granted)
  }

  get waitingCount(): number {
    return this.waiting.size
  }

  /** Whether as much may be drawn now by somebody who has not waited. */
  canDraw(bytes: number): boolean {
    return this.waiting.size === 0 && this.hasRoom(bytes)
  }

  wait(share: MemoryShare): void {
    this.waiting.add(share)
  }

  leave(share: MemoryShare): void {
    this.waiting.delete(share)
  }

  /** Serves those who wait, as far as what was given back reaches. */
  serve(): void {
    if (this.waiting.size === 0) return
    for (const share of this.waiting) {
      if (!this.hasRoom(share.wantedDraw)) return
      share.grant()
    }
  }

  private hasRoom(bytes: number): boolean {
    return this.drawnBytes === 0 || this.drawnBytes + bytes <= this.commonBytesMax
  }
}

/** What one connection holds of a budget. */
export class MemoryShare {
  private readonly budget: MemoryBudget
  private readonly granted: () => void
  private heldBytes = 0
  /** Asked for and refused. */
  private wantedBytes = 0
  /** Set aside for the `take` that was refused. */
  private grantedBytes = 0
  private closed = false

  constructor(budget: MemoryBudget, granted: () => void) {
    this.budget = budget
    this.granted = granted
  }

  /** False when there is no room: then the same is to be asked again once `granted` was told. */
  take(bytes: number): boolean {
    if (this.grantedBytes > 0) {
      this.grantedBytes = 0
      return true
    }
    if (this.wantedBytes > 0) return false
    if (this.takeNow(bytes)) return true
    this.wantedBytes = bytes
    this.budget.wait(this)
    return false
  }

  /** The same for who cannot wait: false means that nothing was taken, and nothing is asked for. */
  takeNow(bytes: number): boolean {
    const draw = this.drawOf(bytes)
    if (draw > 0 && !this.budget.canDraw(draw)) return false
    this.heldBytes += bytes
    this.budget.drawnBytes += draw
    return true
  }

  /** Says how much the connection holds in truth; what it was granted and has not taken yet comes on top. */
  settle(bytes: number): void {
    if (this.closed) return
    const held = bytes + this.grantedBytes
    if (held === this.heldBytes) return
    const shrinks = held < this.heldBytes
    this.budget.drawnBytes += this.drawOf(held - this.heldBytes)
    this.heldBytes = held
    if (this.wantedBytes > 0 && this.wantedDraw === 0) this.grant()
    if (shrinks) this.budget.serve()
  }

  /** What was asked for, or granted and not taken yet, is not wanted any more. */
  forgo(): void {
    this.budget.leave(this)
    const heldBytes = this.heldBytes - this.grantedBytes
    this.grantedBytes = 0
    this.wantedBytes = 0
    this.settle(heldBytes)
    this.budget.serve() // it may have been the first of those who wait
  }

  close(): void {
    this.forgo()
    this.settle(0)
    this.closed = true
  }

  /** It holds memory that others may be waiting for. */
  get draws(): boolean {
    return this.heldBytes > this.budget.ownBytes
  }

  get wantedDraw(): number {
    return this.drawOf(this.wantedBytes)
  }

  grant(): void {
    this.budget.leave(this)
    this.budget.drawnBytes += this.wantedDraw
    this.heldBytes += this.wantedBytes
    this.grantedBytes = this.wantedBytes
    this.wantedBytes = 0
    this.granted()
  }

  /** How much `more` bytes change what the connection draws. */
  private drawOf(more: number): number {
    const { ownBytes } = this.budget
    return Math.max(0, this.heldBytes + more - ownBytes) - Math.max(0, this.heldBytes - ownBytes)
  }
}
