import { StoreError } from '../../errors.ts'
import type { ClusterState } from '../cluster-state.ts'
import type { Entry, ExportRight } from '../entries.ts'
import type { Life } from '../membership/view.ts'
import type { Session, Sessions } from '../session.ts'
import { Turns } from '../turns.ts'

export interface ExportAdmissionOptions {
  state: ClusterState
  sessions: Sessions
  propose(entry: Entry): Promise<void>
  /** Which node's client a holder of sessions is. */
  gatewayOf(holder: object | null): Life
  /** Whether there is a lease: without one, there may be another owner. */
  mayAct(): boolean
  /** The entry that names this node as the owner of a VDI; null while it is not. */
  ownedBy(vid: number): number | null
}

/**
 * Whoever has an attachment may come to any gateway, and is at one of them at a time. The log names the last one that he came to: what
 * he has open through others is over before that, and they cannot go on with it, at this owner or the next. So a request that an
 * earlier gateway still has from him, and sends when it can, changes nothing any more, even if he has come back to it since: what was open
 * there bears the number of another opening.
 */
export class ExportAdmission {
  readonly #options: ExportAdmissionOptions
  readonly #turns = new Turns<string>()

  constructor(options: ExportAdmissionOptions) {
    this.#options = options
  }

  /**
   * Opens under an export right, or goes on with what was open under it since opening `resumed`.
   *
   * @throws StoreError NoExport; Fenced, when another gateway has opened it since; Unsure, when there may be another owner; OldEpoch, when
   *    there has been one since this was asked: who is to be let in, only he can tell who knows all that are.
   */
  open(nameHash: string, holder: object | null, resumed: number | null): Promise<Session> {
    const { sessions, mayAct, ownedBy } = this.#options
    const { attachmentId, vid } = this.#rightOf(nameHash)
    const ownedSince = ownedBy(vid)
    const confirm = () => {
      if (ownedSince === null || ownedBy(vid) !== ownedSince) throw new StoreError('OldEpoch')
    }
    return this.#turns.take(attachmentId, async () => {
      confirm()
      await this.#admit(this.#rightOf(nameHash), this.#options.gatewayOf(holder), resumed, confirm)
      if (!mayAct()) throw new StoreError('Unsure')
      return sessions.openExport(nameHash, holder)
    })
  }

  async #admit(
    { attachmentId, gateway }: ExportRight,
    { node, incarnation }: Life,
    resumed: number | null,
    confirm: () => void,
  ): Promise<void> {
    const { sessions, propose, gatewayOf } = this.#options
    const isOther = (life: Life | undefined) => life?.node !== node || life.incarnation !== incarnation
    if (resumed !== null && (isOther(gateway) || gateway?.opening !== resumed))
      throw new StoreError('Fenced', 'it was opened at another gateway since')
    if (!isOther(gateway)) return
    await sessions.endUnder(attachmentId, (holder) => isOther(gatewayOf(holder)))
    confirm() // what it waited for may have ended because there is another owner
    await propose({ type: 'gateway', attachmentId, node, incarnation })
  }

  #rightOf(nameHash: string): ExportRight {
    const right = this.#options.state.exports.byHash(nameHash)
    if (!right) throw new StoreError('NoExport')
    return right
  }
}
