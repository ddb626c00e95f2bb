import type { NodeId } from '../order/item.ts'

/** How many beats a node may be silent. */
export const SILENT_BEATS = 8

/**
 * Who has not been heard for too long. Silence is counted in beats of this node and not in time: after it stood still itself, what
 * others sent meanwhile comes before it counts further.
 */
export class Silence {
  readonly #beats = new Map<NodeId, number>()

  /** One more beat in which each of these should have been heard; others are not waited for. New ones have twice the time. */
  beat(nodes: ReadonlySet<NodeId>): void {
    for (const node of this.#beats.keys()) if (!nodes.has(node)) this.#beats.delete(node)
    for (const node of nodes) this.#beats.set(node, (this.#beats.get(node) ?? -SILENT_BEATS) + 1)
  }

  heard(node: NodeId): void {
    if (this.#beats.has(node)) this.#beats.set(node, 0)
  }

  get silent(): NodeId[] {
    return [...this.#beats].filter(([, beats]) => beats >= SILENT_BEATS).map(([node]) => node)
  }
}
