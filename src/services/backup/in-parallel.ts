/**
 * Does something to each item, so many at a time, and answers the results in the order of the items. With the first failure no
 * more are begun; it rejects with that once those that run have ended, so that nothing goes on behind the caller's back.
 */
export async function inParallel<T, R>(items: Iterable<T>, width: number, work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  await eachInParallel([...items].entries(), width, async ([index, item]) => {
    results[index] = await work(item)
  })
  return results
}

/** The same for items that come one by one, without results. What is asked for the next one meanwhile may wait for something itself. */
export async function eachInParallel<T>(
  items: Iterator<T> | AsyncIterator<T>,
  width: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const failures: unknown[] = []
  const lane = async () => {
    while (failures.length === 0) {
      const { done, value } = await items.next()
      if (done) return
      await work(value)
    }
  }
  const caught = () => lane().catch((error) => failures.push(error))
  await Promise.all(Array.from({ length: width }, caught))
  if (failures.length > 0) throw failures[0]
}
