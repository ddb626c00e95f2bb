/**
 * Does something to each item, so many at a time, and answers the results in the order of the items. With the first failure no
 * more are begun; it rejects with that once those that run have ended, so that nothing goes on behind the caller's back.
 */
export async function inParallel<T, R>(items: Iterable<T>, width: number, work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  const rest = [...items].entries()
  const failures: unknown[] = []
  const lane = async () => {
    for (const [index, item] of rest) {
      if (failures.length > 0) return
      try {
        results[index] = await work(item)
      } catch (error) {
        failures.push(error)
      }
    }
  }
  await Promise.all(Array.from({ length: width }, lane))
  if (failures.length > 0) throw failures[0]
  return results
}
