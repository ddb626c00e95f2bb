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
}

/**
 * Whoever has an attachment may come to any gateway, and is at one of them at a time. The log names the last one that he came to: what
 * he has open through others is over before that, and they cannot go on with it, at this owner or the next. So a request that an
 * earlier gateway still has from him, and sends when it can, changes nothing any more.
 */
export class ExportAdmission {
  readonly #options: ExportAdmissionOptions
  readonly #turns = new Turns<string>()

  constructor(options: ExportAdmissionOptions) {
    this.#options = options
  }

  /**
   * Opens under an export right.
   *
   * @throws StoreError NoExport; Fenced, when it `resumes` what another gateway has opened since.
   */
  open(nameHash: string, holder: object | null, resumes: boolean): Promise<Session> {
    const { sessions } = this.#options
    return this.#turns.take(this.#rightOf(nameHash).attachmentId, async () => {
      await this.#admit(this.#rightOf(nameHash), this.#options.gatewayOf(holder), resumes)
      return sessions.openExport(nameHash, holder)
    })
  }

  async #admit({ attachmentId, gateway }: ExportRight, { node, incarnation }: Life, resumes: boolean): Promise<void> {
    const { sessions, propose, gatewayOf } = this.#options
    const isOther = (life: Life | undefined) => life?.node !== node || life.incarnation !== incarnation
    if (!isOther(gateway)) return
    if (resumes) throw new StoreError('Fenced', 'it was opened at another gateway since')
    await sessions.endUnder(attachmentId, (holder) => isOther(gatewayOf(holder)))
    await propose({ type: 'gateway', attachmentId, node, incarnation })
  }

  #rightOf(nameHash: string): ExportRight {
    const right = this.#options.state.exports.byHash(nameHash)
    if (!right) throw new StoreError('NoExport')
    return right
  }
}
