import type { ClusterDriver, Deliver } from './driver.ts'

/** One node: the order is the order of asking, and its own disk is the majority. */
export function createSingleDriver(deliver: Deliver): ClusterDriver {
  return {
    propose: async (entry) => deliver(entry),
    stop: async () => {},
  }
}
