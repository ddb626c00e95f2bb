import { type Clock, systemClock, type Timer } from '../../src/runtime/clock.ts'

/** The clock of a process that can be made to stand still: while it does, no timer fires, and those that were due fire after. */
export class PausableClock implements Clock {
  #isPaused = false
  #missed: (() => void)[] = []

  pause(): void {
    this.#isPaused = true
  }

  goOn(): void {
    this.#isPaused = false
    for (const fire of this.#missed.splice(0)) fire()
  }

  now(): number {
    return systemClock.now()
  }

  monotonicMs(): number {
    return systemClock.monotonicMs()
  }

  timer(delayMs: number, fire: () => void): Timer {
    let isCancelled = false
    const fireUnlessCancelled = () => {
      if (!isCancelled) fire()
    }
    const timer = systemClock.timer(delayMs, () => {
      if (this.#isPaused) this.#missed.push(fireUnlessCancelled)
      else fireUnlessCancelled()
    })
    return {
      cancel: () => {
        isCancelled = true
        timer.cancel()
      },
    }
  }

  afterInput(fire: () => void): void {
    systemClock.afterInput(fire)
  }

  afterBatch(fire: () => void): void {
    systemClock.afterBatch(fire)
  }

  sleep(delayMs: number): Promise<void> {
    return systemClock.sleep(delayMs)
  }
}
