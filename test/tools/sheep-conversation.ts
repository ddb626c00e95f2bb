import { RawSheepClient } from './raw-sheep-client.ts'
import { FLAG, type Inode, RESULT } from './sheep-layouts.ts'

/** The server's answer was a result other than the one that the client could go on with. */
export class SheepRefusal extends Error {
  readonly result: number

  constructor(what: string, result: number) {
    super(`${what} was answered with ${hex(result)}`)
    this.result = result
  }
}

export interface Question {
  opcode: number
  /** What clients of upstream 1.0 send, when it is left out. */
  protoVer?: number
  /** WRITE is set when there is a body. */
  flags?: number
  body?: Buffer
  /** Of a request without a body: how much the client offers to take. */
  dataLength?: number
  /** Fields of the union as [offset, bytes, value]. */
  fields?: readonly (readonly [number, 1 | 2 | 4 | 8, number | bigint])[]
  /** Results besides success that the client has an answer to. */
  expected?: readonly number[]
}

export interface Answer {
  result: number
  header: Buffer
  body: Buffer
}

export interface ObjectRange {
  oid: bigint
  offset?: number
  flags?: number
  protoVer?: number
}

export interface VdiAnswer {
  result: number
  vid: number
}

/**
 * One connection of a client that asks one thing at a time, as `dog` and tgt do. Each answer is held against what such a
 * client relies on: it echoes opcode and id, names an epoch, and brings a body exactly where the client reads one.
 */
export class SheepConversation {
  readonly #client: RawSheepClient
  #epoch: number | null = null

  private constructor(client: RawSheepClient) {
    this.#client = client
  }

  static async connect(address: string): Promise<SheepConversation> {
    return new SheepConversation(await RawSheepClient.connect(address))
  }

  close(): void {
    this.#client.close()
  }

  async ask(question: Question): Promise<Answer> {
    const { opcode, body, flags = 0, dataLength = 0, fields = [], expected = [] } = question
    const sent = body === undefined ? flags : flags | FLAG.WRITE
    const protoVer = question.protoVer ?? (opcode < 0x80 ? 2 : 10)
    const offered = body?.length ?? dataLength
    const request = { opcode, protoVer, flags: sent, id: 0, dataLength: offered, fields }
    const answer = await this.#client.request(body === undefined ? request : { ...request, body })
    const what = `opcode ${hex(opcode)}`
    const { header, result } = answer
    if (answer.opcode !== opcode || answer.id !== 0) throw new Error(`${what}: opcode or id is not echoed`)
    this.#checkEpoch(what, header.readUInt32LE(4))
    const mayHaveBody = result === RESULT.SUCCESS && ((sent & FLAG.WRITE) === 0 || (sent & FLAG.PIGGYBACK) !== 0)
    if (answer.body.length > (mayHaveBody ? offered : 0)) {
      throw new Error(`${what}: a body of ${answer.body.length} bytes, which the client does not read (${hex(result)})`)
    }
    if (result !== RESULT.SUCCESS && !expected.includes(result)) throw new SheepRefusal(what, result)
    return { result, header, body: answer.body }
  }

  async readObject({ oid, offset = 0, flags = 0, protoVer = 2 }: ObjectRange, lengthBytes: number): Promise<Buffer> {
    const fields = [
      [16, 8, oid],
      [40, 4, offset],
    ] as const
    const { header, body } = await this.ask({ opcode: 0x02, protoVer, flags, dataLength: lengthBytes, fields })
    if (body.length !== lengthBytes) throw new Error(`${lengthBytes} bytes were asked for, ${body.length} came`)
    if (header.readBigUInt64LE(24) !== 0n) throw new Error('the answer is trimmed')
    return body
  }

  async writeObject({ oid, offset = 0, flags = 0, protoVer = 2 }: ObjectRange, data: Buffer): Promise<void> {
    const fields = [
      [16, 8, oid],
      [32, 1, 1],
      [40, 4, offset],
    ] as const
    await this.ask({ opcode: 0x03, protoVer, flags, body: data, fields })
  }

  /** With `cowOid` the object starts as a copy of that one. */
  async createObject({ oid, offset = 0, flags = 0, protoVer = 2 }: ObjectRange, data: Buffer, cowOid = 0n) {
    const fields = [
      [16, 8, oid],
      [24, 8, cowOid],
      [32, 1, 1],
      [40, 4, offset],
    ] as const
    const cow = cowOid === 0n ? 0 : FLAG.COW
    await this.ask({ opcode: 0x01, protoVer, flags: flags | cow, body: data, fields })
  }

  /** NEW_VDI, LOCK_VDI, RELEASE_VDI, GET_VDI_INFO, DEL_VDI: whatever answers with a vid. */
  async askForVdi(question: Question): Promise<VdiAnswer> {
    const { result, header } = await this.ask(question)
    const vid = header.readUInt32LE(24)
    return { result, vid }
  }

  /** NEW_VDI. `base` is the inode of what it is to be made from. */
  async newVdi(
    name: string,
    sizeBytes: number,
    { base, isSnapshot = false, protoVer = 2 }: { base?: Inode; isSnapshot?: boolean; protoVer?: number } = {},
  ): Promise<number> {
    const body = Buffer.alloc(256)
    body.write(name)
    const fields = [
      [16, 8, sizeBytes],
      [24, 4, base?.vid ?? 0],
      [28, 1, base?.copies ?? 0],
      [29, 1, base?.copyPolicy ?? 0],
      [30, 1, base?.storePolicy ?? 0],
      [31, 1, base?.blockSizeShift ?? 0],
      [32, 4, isSnapshot ? 1 : 0],
    ] as const
    const { header } = await this.ask({ opcode: 0x11, protoVer, body, fields })
    const [copies, shift] = [header.readUInt8(32), header.readUInt8(33)]
    if (copies !== 1 || shift !== 22) throw new Error(`the new VDI has ${copies} copies of objects of 2^${shift} bytes`)
    return header.readUInt32LE(24)
  }

  #checkEpoch(what: string, epoch: number): void {
    if (epoch === 0 || (this.#epoch !== null && epoch < this.#epoch)) throw new Error(`${what}: epoch ${epoch}`)
    this.#epoch = epoch
  }
}

const hex = (code: number) => `0x${code.toString(16).padStart(2, '0')}`
