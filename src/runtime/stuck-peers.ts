import type { Clock, Timer } from './clock.ts'
import type { MemoryBudget } from './memory-budget.ts'

/** How long a peer may stand still when it is its turn: to take what it was sent, or to finish what it has begun. */
export interface StuckLimits {
  /** A peer that moves less than 64 KiB in this time is dropped; the second holds when it keeps memory that others wait for. */
  stuckMs: number
  stuckUnderPressureMs: number
}

/** One that moves less in the time it is given counts as not moving at all. */
const PROGRESS_BYTES_MIN = 64 * 1024

/** What one peer does, as seen now and then. */
export class PeerProgress {
  private sinceMs: number
  private movedBytes = 0

  constructor(nowMs: number) {
    this.sinceMs = nowMs
  }

  /** For how long it has been the peer's turn without its doing anything that counts. `movedBytes` are those that went either way. */
  stuckForMs(nowMs: number, { waitsForPeer, movedBytes }: { waitsForPeer: boolean; movedBytes: number }): number {
    if (!waitsForPeer || movedBytes - this.movedBytes >= PROGRESS_BYTES_MIN) {
      this.sinceMs = nowMs
      this.movedBytes = movedBytes
    }
    return nowMs - this.sinceMs
  }
}

export interface WatchedPeer {
  /** To be asked now and then; see PeerProgress. */
  stuckForMs(nowMs: number): number
  /** It keeps memory that others may be waiting for. */
  readonly drawsCommonMemory: boolean
}

export interface StuckPeersOptions<P> {
  clock: Clock
  limits: StuckLimits
  budget: MemoryBudget
  peers: Iterable<P>
  drop(peer: P, stuckMs: number): void
}

/** Has peers dropped that are stuck for too long; while somebody waits for memory, one at a time of those who keep it, worst first. */
export class StuckPeers<P extends WatchedPeer> {
  private readonly options: StuckPeersOptions<P>
  private timer: Timer

  constructor(options: StuckPeersOptions<P>) {
    this.options = options
    this.timer = this.arm()
  }

  stop(): void {
    this.timer.cancel()
  }

  private arm(): Timer {
    const { clock, limits } = this.options
    return clock.timer(limits.stuckUnderPressureMs / 4, () => {
      this.look()
      this.timer = this.arm()
    })
  }

  private look(): void {
    const { clock, limits, budget, peers, drop } = this.options
    const nowMs = clock.monotonicMs()
    let worst: P | undefined
    let worstMs = limits.stuckUnderPressureMs
    for (const peer of peers) {
      const stuckMs = peer.stuckForMs(nowMs)
      if (stuckMs >= limits.stuckMs) drop(peer, stuckMs)
      else if (budget.waitingCount > 0 && peer.drawsCommonMemory && stuckMs >= worstMs) {
        worst = peer
        worstMs = stuckMs
      }
    }
    if (worst !== undefined) drop(worst, worstMs)
  }
}
