import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createNbdServer } from '../../../src/exports/nbd/server.ts'
import { systemClock } from '../../../src/runtime/clock.ts'
import { createLog } from '../../../src/runtime/log.ts'
import { MemoryDevice, MemoryDisk } from '../../tools/memory-device.ts'
import { MemoryNetwork } from '../../tools/memory-network.ts'
import { hex } from './bytes.ts'
import { EXPORT_NAME, RIGHT_ID, until } from './harness.ts'

const SIZE_BYTES = 1024 * 1024
const [EXPORT_NAME_OPTION, LIST, INFO, GO, STRUCTURED, LIST_META, SET_META] = [1, 3, 6, 7, 8, 9, 10] as const
const [ACK, INFO_REPLY, META_REPLY] = [1, 3, 4] as const
const [UNSUP, INVALID, UNKNOWN] = [0x8000_0001, 0x8000_0003, 0x8000_0006] as const
const NAMES = [EXPORT_NAME, '', 'another', 'x'.repeat(4096)]
const QUERIES = ['base:allocation', 'base:', 'base:other', 'qemu:dirty-bitmap:x', '', ':']

type Step =
  | { option: typeof LIST | typeof STRUCTURED; extra: boolean }
  | { option: typeof LIST_META | typeof SET_META; name: string; queries: string[]; extra: boolean }
  | { option: typeof INFO; name: string; wanted: number[]; extra: boolean }
  | { option: number; unknown: true }

const name = fc.constantFrom(EXPORT_NAME, ...NAMES)
const extra = fc.integer({ min: 0, max: 9 }).map((n) => n === 0)
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ option: fc.constantFrom(LIST, STRUCTURED, STRUCTURED), extra }),
  fc.record({
    option: fc.constantFrom(LIST_META, SET_META),
    name,
    queries: fc.array(fc.constantFrom(...QUERIES), { maxLength: 3 }),
    extra,
  }),
  fc.record({ option: fc.constant(INFO), name, wanted: fc.array(fc.nat(5), { maxLength: 6 }), extra }),
  fc.record({ option: fc.constantFrom(4, 5, 11, 12, 0xffff_ffff), unknown: fc.constant(true as const) }),
)

/** What the protocol's document says of a handshake, in plain words; no code of the server takes part. */
class Model {
  structured = false
  selected = ''

  /** The types of the replies to a step, with the names of contexts and the kinds of information told. */
  answer(step: Step): string[] {
    const type = (number: number, detail: string | number = '') => `${number} ${detail}`.trim()
    if ('unknown' in step) return [type(UNSUP)]
    if (step.option === LIST) return [type(step.extra ? INVALID : ACK)]
    if (step.option === STRUCTURED) {
      if (!step.extra) this.structured = true
      return [type(step.extra ? INVALID : ACK)]
    }
    if ('wanted' in step) {
      if (step.extra) return [type(INVALID)]
      if (step.name !== EXPORT_NAME) return [type(UNKNOWN)]
      const told = [0, 1, 2, 3].filter((kind) => kind === 0 || step.wanted.includes(kind))
      return [...told.map((kind) => type(INFO_REPLY, kind)), type(ACK)]
    }
    if (!('queries' in step)) throw new Error('no such step')
    const sets = step.option === SET_META
    if (sets) this.selected = ''
    if (step.extra || !this.structured) return [type(INVALID)]
    if (step.name !== EXPORT_NAME) return [type(UNKNOWN)]
    const named = step.queries.includes('base:allocation')
    if (sets && named) this.selected = step.name
    const matches = named || (!sets && (step.queries.length === 0 || step.queries.includes('base:')))
    return matches ? [type(META_REPLY, 'base:allocation'), type(ACK)] : [type(ACK)]
  }
}

test('any handshake goes as the document says, and what was agreed holds afterwards', async () => {
  const network = new MemoryNetwork()
  const disk = new MemoryDisk(SIZE_BYTES)
  const server = createNbdServer({
    network,
    clock: systemClock,
    log: createLog('silent'),
    exports: {
      lookup: async (found) =>
        found === EXPORT_NAME ? { id: RIGHT_ID, readOnly: false, open: async () => new MemoryDevice(disk) } : undefined,
    },
  })
  await server.listen('memory')

  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), fc.boolean(), async (steps, oldStyle) => {
      const model = new Model()
      const client = network.dial()
      let heard = Buffer.alloc(0)
      const take = async (lengthBytes: number): Promise<Buffer> => {
        await until(() => {
          heard = Buffer.concat([heard, client.take()])
          return heard.length >= lengthBytes
        })
        const bytes = heard.subarray(0, lengthBytes)
        heard = heard.subarray(lengthBytes)
        return bytes
      }
      await take(18)
      client.send(hex('00000003'))
      for (const step of steps) {
        client.send(encode(step.option, dataOf(step)))
        for (const expected of model.answer(step)) {
          const head = await take(20)
          expect(head.readUInt32BE(8)).toBe(step.option)
          const body = await take(head.readUInt32BE(16))
          const type = head.readUInt32BE(12)
          const detail =
            type === INFO_REPLY ? ` ${body.readUInt16BE(0)}` : type === META_REPLY ? ` ${body.toString('utf8', 4)}` : ''
          expect(`${type}${detail}`, JSON.stringify(steps)).toBe(expected)
        }
      }
      client.send(
        oldStyle ? encode(EXPORT_NAME_OPTION, Buffer.from(EXPORT_NAME)) : encode(GO, infoData(EXPORT_NAME, [])),
      )
      const flags = oldStyle ? (await take(10)).readUInt16BE(8) : (await take(32 + 20)).readUInt16BE(30)
      expect(flags).toBe(model.structured ? 0x0ded : 0x0d6d)

      client.send(hex('25609513 0000 0007 0000000000000001 0000000000000000 00001000'))
      const magic = (await take(16)).toString('hex')
      if (model.selected === EXPORT_NAME) expect(magic).toBe('668e33ef000100050000000000000001')
      else if (model.structured) expect(magic).toBe('668e33ef000180010000000000000001')
      else expect(magic).toBe('67446698000000160000000000000001')
      client.close()
      await until(() => server.stats.connections === 0)
    }),
    { numRuns: 300 },
  )
  await server.close()
})

function dataOf(step: Step): Buffer {
  if ('unknown' in step) return Buffer.from('whatever')
  const rest = Buffer.alloc(step.extra ? 1 : 0)
  if ('wanted' in step) return Buffer.concat([infoData(step.name, step.wanted), rest])
  if (!('queries' in step)) return rest
  return Buffer.concat([text(step.name), uint32(step.queries.length), ...step.queries.map(text), rest])
}

function infoData(exportName: string, wanted: number[]): Buffer {
  const numbers = Buffer.alloc(2 + 2 * wanted.length)
  numbers.writeUInt16BE(wanted.length)
  for (const [index, kind] of wanted.entries()) numbers.writeUInt16BE(kind, 2 + 2 * index)
  return Buffer.concat([text(exportName), numbers])
}

function encode(option: number, data: Buffer): Buffer {
  return Buffer.concat([hex('49484156454f5054'), uint32(option), uint32(data.length), data])
}

function text(value: string): Buffer {
  return Buffer.concat([uint32(Buffer.byteLength(value)), Buffer.from(value)])
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
