import { STORE_ERRORS, StoreError } from '../../errors.ts'
import type { Device } from '../../vdi/device.ts'
import type { Option } from './option-reader.ts'
import {
  BASE_ALLOCATION_ID,
  type ExportInfo,
  encodeExportNameReply,
  encodeInfoReplies,
  encodeMetaContextReplies,
  encodeOptionReply,
  listsBaseAllocation,
  parseExportName,
  parseInfoRequest,
  parseMetaContextRequest,
  selectsBaseAllocation,
  transmissionFlags,
} from './options.ts'
import { OPTION, OPTION_REPLY, STRING_BYTES_MAX } from './protocol.ts'
import type { ExportTerms } from './request-check.ts'

/** An export that was found and opened for this client. */
export interface OpenExport {
  name: string
  description: string
  readOnly: boolean
  device: Device
}

/** What a handshake needs from its session. Both reject with a StoreError when the store cannot tell. */
export interface Admission {
  exists(name: string): Promise<boolean>
  /**
   * Opens the export, in place of one that was opened before; undefined when there is no such right, 'busy' when it has
   * all the connections that a right may have.
   */
  open(name: string): Promise<OpenExport | 'busy' | undefined>
}

/**
 * `next` says how it goes on once `reply` is sent: with another option, with requests, not at all, or with TLS and a new Negotiation,
 * since nothing that was said before TLS counts afterwards.
 */
export interface Answer {
  reply: Buffer
  next: 'options' | 'transmission' | 'tls' | 'end'
}

/** Whether TLS may begin, has to begin before anything else, cannot, or has begun. */
export type TlsState = 'off' | 'optional' | 'required' | 'on'

/** Why an export is not opened; undefined when there is no such right. */
type Refusal = StoreError | 'busy' | undefined

const NO_REPLY = Buffer.alloc(0)

/** The server's side of option haggling: what each option changes and how it is answered. */
export class Negotiation {
  private readonly admission: Admission
  private readonly noZeroes: boolean
  private readonly tls: TlsState
  private structuredReplies = false
  /** The export that base:allocation was selected for; it counts only when that very export is used. */
  private statusExport: string | undefined
  private opened: OpenExport | undefined

  constructor(admission: Admission, noZeroes: boolean, tls: TlsState) {
    this.admission = admission
    this.noZeroes = noZeroes
    this.tls = tls
  }

  /** What was agreed, after an answer that goes on with transmission. */
  get agreed(): { device: Device; terms: ExportTerms } | undefined {
    if (this.opened === undefined) return undefined
    const { device, name, readOnly } = this.opened
    const { structuredReplies } = this
    const blockStatus = structuredReplies && this.statusExport === name
    return { device, terms: { readOnly, structuredReplies, blockStatus } }
  }

  async answer({ option, data }: Option): Promise<Answer> {
    if (this.tls === 'required' && option !== OPTION.STARTTLS && option !== OPTION.ABORT) return needsTls(option)
    switch (option) {
      case OPTION.EXPORT_NAME:
        return this.exportName(data)
      case OPTION.ABORT:
        return { reply: encodeOptionReply(option, OPTION_REPLY.ACK), next: 'end' }
      case OPTION.LIST: // names are secrets, so the list is empty for everybody
        return options(encodeOptionReply(option, data.length === 0 ? OPTION_REPLY.ACK : OPTION_REPLY.ERR_INVALID))
      case OPTION.INFO:
      case OPTION.GO:
        return this.info(option, data)
      case OPTION.STRUCTURED_REPLY:
        if (data.length > 0) return invalid(option)
        this.structuredReplies = true
        return options(encodeOptionReply(option, OPTION_REPLY.ACK))
      case OPTION.LIST_META_CONTEXT:
      case OPTION.SET_META_CONTEXT:
        return this.metaContext(option, data)
      case OPTION.STARTTLS:
        return this.startTls(data)
      default:
        return options(encodeOptionReply(option, OPTION_REPLY.ERR_UNSUP))
    }
  }

  private startTls(data: Buffer): Answer {
    if (this.tls === 'off') return options(encodeOptionReply(OPTION.STARTTLS, OPTION_REPLY.ERR_UNSUP))
    if (this.tls === 'on' || data.length > 0) return invalid(OPTION.STARTTLS)
    return { reply: encodeOptionReply(OPTION.STARTTLS, OPTION_REPLY.ACK), next: 'tls' }
  }

  /** This option has no way to report an error. */
  private async exportName(data: Buffer): Promise<Answer> {
    const name = parseExportName(data)
    const found = name === undefined ? undefined : await this.open(name)
    if (!isOpen(found)) return { reply: NO_REPLY, next: 'end' }
    return { reply: encodeExportNameReply(this.describe(found), this.noZeroes), next: 'transmission' }
  }

  private async info(option: number, data: Buffer): Promise<Answer> {
    const request = parseInfoRequest(data)
    if (request === undefined) return invalid(option)
    const found = await this.open(request.name)
    if (!isOpen(found)) return unavailable(option, found)
    const reply = encodeInfoReplies(option, request, this.describe(found))
    return { reply, next: option === OPTION.GO ? 'transmission' : 'options' }
  }

  private async metaContext(option: number, data: Buffer): Promise<Answer> {
    const sets = option === OPTION.SET_META_CONTEXT
    if (sets) this.statusExport = undefined // even when it fails
    const request = parseMetaContextRequest(data)
    if (request === undefined || !this.structuredReplies) return invalid(option)
    const exists = await this.admission.exists(request.name).catch(storeError)
    if (exists !== true) return unavailable(option, exists === false ? undefined : exists)
    if (!sets) return options(encodeMetaContextReplies(option, listsBaseAllocation(request.queries), 0))
    const selected = selectsBaseAllocation(request.queries)
    if (selected) this.statusExport = request.name
    return options(encodeMetaContextReplies(option, selected, BASE_ALLOCATION_ID))
  }

  private async open(name: string): Promise<OpenExport | Refusal> {
    if (Buffer.byteLength(name) > STRING_BYTES_MAX) return undefined
    if (this.opened?.name === name) return this.opened // INFO before GO
    this.opened = undefined
    const found = await this.admission.open(name).catch(storeError)
    if (isOpen(found)) this.opened = found
    return found
  }

  private describe({ description, device, readOnly }: OpenExport): ExportInfo {
    return {
      description,
      sizeBytes: device.sizeBytes,
      transmissionFlags: transmissionFlags(readOnly, this.structuredReplies),
    }
  }
}

function isOpen(found: OpenExport | Refusal): found is OpenExport {
  return typeof found === 'object' && !(found instanceof StoreError)
}

function options(reply: Buffer): Answer {
  return { reply, next: 'options' }
}

function needsTls(option: number): Answer {
  if (option === OPTION.EXPORT_NAME) return { reply: NO_REPLY, next: 'end' } // it has no way to report an error
  return options(encodeOptionReply(option, OPTION_REPLY.ERR_TLS_REQD, 'this server wants TLS first'))
}

function invalid(option: number): Answer {
  return options(encodeOptionReply(option, OPTION_REPLY.ERR_INVALID))
}

/** A client learns whether it may try again later, but not why a right it does not have is refused. */
function unavailable(option: number, refusal: Refusal): Answer {
  if (refusal === 'busy') {
    return options(encodeOptionReply(option, OPTION_REPLY.ERR_POLICY, 'the export has too many connections'))
  }
  if (refusal?.code === 'Stopping') {
    return options(encodeOptionReply(option, OPTION_REPLY.ERR_SHUTDOWN, STORE_ERRORS.Stopping))
  }
  return options(encodeOptionReply(option, OPTION_REPLY.ERR_UNKNOWN, 'no such export'))
}

function storeError(error: unknown): StoreError {
  if (error instanceof StoreError) return error
  throw error
}
