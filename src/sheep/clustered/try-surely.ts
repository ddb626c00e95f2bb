import { StoreError } from '../../errors.ts'
import type { Clock } from '../../runtime/clock.ts'

export interface SurelyOptions {
  clock: Clock
  /** Whether the log says already that it was done. */
  isDone(): boolean
  /** Resolves when it may be otherwise: another view, another owner. */
  changed(): Promise<void>
}

/** For so long: views that follow one another, as when nodes start together, leave many things unsure. */
export const SURE_WITHIN_MS = 5000
export const RETRY_MS = 200

/**
 * Tries again what may have been done, and may be done twice, while nobody can tell whether it was. What is refused after that, though it was
 * done, has been done by the time before.
 *
 * @throws what `work` does; Unsure when nobody can tell in time.
 */
export async function trySurely(work: () => Promise<void>, { clock, isDone, changed }: SurelyOptions): Promise<void> {
  const untilMs = clock.monotonicMs() + SURE_WITHIN_MS
  let wasUnsure = false
  for (;;) {
    const next = changed()
    try {
      return await work()
    } catch (error) {
      if (wasUnsure && isDone()) return
      const isUnsure = error instanceof StoreError && error.code === 'Unsure'
      if (!isUnsure || clock.monotonicMs() >= untilMs) throw error
      wasUnsure = true
      await Promise.race([next, clock.sleep(RETRY_MS)])
      if (isDone()) return
    }
  }
}
