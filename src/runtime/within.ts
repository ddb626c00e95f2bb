import type { Clock } from './clock.ts'

/** What the work comes to; or what `late` gives or throws, when that takes longer: then whatever the work still comes to is dropped. */
export function within<T, L>(clock: Clock, limitMs: number, work: Promise<T>, late: () => L): Promise<T | L> {
  return new Promise((resolve, reject) => {
    const timer = clock.timer(limitMs, () => {
      try {
        resolve(late())
      } catch (error) {
        reject(error)
      }
    })
    work.then(resolve, reject).finally(() => timer.cancel())
  })
}
