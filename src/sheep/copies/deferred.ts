export interface Deferred {
  promise: Promise<void>
  resolve(): void
  reject(error: Error): void
}

export function deferred(): Deferred {
  let settle: Omit<Deferred, 'promise'> | null = null
  const promise = new Promise<void>((resolve, reject) => {
    settle = { resolve, reject }
  })
  promise.catch(() => {}) // who waits for it hears of it
  return { promise, ...settle! }
}
