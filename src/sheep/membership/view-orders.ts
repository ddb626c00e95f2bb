import { StoreError } from '../../errors.ts'
import type { NodeId } from '../order/item.ts'
import type { CopiesChange, View } from './view.ts'

interface Order {
  /** Whether a view in effect has what was asked for. */
  isIn(view: View): boolean
  settled(): void
  failed(error: StoreError): void
}

/**
 * What operators have asked this node to bring about by a view, until one that has it is in effect. Of what contradicts each other the
 * last counts.
 */
export class ViewOrders {
  readonly drains = new Map<NodeId, boolean>()
  readonly removals = new Set<NodeId>()
  #copies: readonly CopiesChange[] = []
  #orders: readonly Order[] = []

  get isEmpty(): boolean {
    return this.#orders.length === 0
  }

  get copies(): readonly CopiesChange[] {
    return this.#copies
  }

  /** Resolves when that has taken effect here. */
  drain(node: NodeId, isDraining: boolean): Promise<void> {
    this.drains.set(node, isDraining)
    return this.#order((view) => (view.draining?.includes(node) ?? false) === (this.drains.get(node) ?? isDraining))
  }

  remove(node: NodeId): Promise<void> {
    this.removals.add(node)
    return this.#order((view) => view.removed?.includes(node) ?? false)
  }

  alterCopies(wanted: CopiesChange): Promise<void> {
    const { vid } = wanted
    this.#copies = [...this.#copies.filter((change) => change.vid !== vid), wanted]
    return this.#order((view) => view.copies?.some((change) => change.vid === vid) ?? false)
  }

  tookEffect(view: View): void {
    const done = this.#orders.filter((order) => order.isIn(view))
    this.#orders = this.#orders.filter((order) => !done.includes(order))
    for (const [node, isDraining] of this.drains)
      if ((view.draining?.includes(node) ?? false) === isDraining) this.drains.delete(node)
    for (const node of view.removed ?? []) this.removals.delete(node)
    const altered = view.copies ?? []
    this.#copies = this.#copies.filter((wanted) => !altered.some((change) => isSame(change, wanted)))
    for (const { settled } of done) settled()
  }

  /** This node is not the one any more that was asked: by now others may have been asked for something else. Whether it was done nobody knows. */
  end(): void {
    const orders = this.#orders
    this.#orders = []
    this.#copies = []
    this.drains.clear()
    this.removals.clear()
    for (const { failed } of orders) failed(new StoreError('Unsure'))
  }

  #order(isIn: (view: View) => boolean): Promise<void> {
    return new Promise((settled, failed) => {
      this.#orders = [...this.#orders, { isIn, settled, failed }]
    })
  }
}

const isSame = (a: CopiesChange, b: CopiesChange) =>
  a.vid === b.vid && a.copies === b.copies && a.copiesMin === b.copiesMin
