import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** Bytes that are in use after everything that can be is collected, outside of the heap too. */
export function bytesInUse(): number {
  collect()
  collect() // memory of buffers is given back beside the first one, and the second waits for that
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}
