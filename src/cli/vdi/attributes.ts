import { UsageError } from '../../errors.ts'
import { VDI_ATTR_KEY_SIZE_BYTES, VDI_ATTR_VALUE_SIZE_BYTES } from '../../protocol/constants.ts'
import { formatTime } from '../../runtime/clock.ts'
import type { SnapshotName, VdiClient } from '../../vdi/client.ts'
import {
  type Command,
  type CommandCall,
  CommandFailure,
  type CommandIo,
  type CommandPorts,
  EXIT,
  type Operand,
} from '../command.ts'
import { nearest } from '../near.ts'
import { shellOperand } from '../shell-word.ts'
import { table } from '../table.ts'
import { about, checkedText, findVdi, isCode, NAME, SNAPSHOT, withStore } from './store.ts'

const KEY: Operand = { name: 'KEY', meaning: `Name of the attribute, of at most ${VDI_ATTR_KEY_SIZE_BYTES - 1} bytes.` }

/** Small notes on VDIs and snapshots, for whoever manages them. */
export function attributeCommands(ports: CommandPorts): Command[] {
  /** Runs `work` on the VDI that the line names, or the snapshot. */
  const onVdi = <T>(call: CommandCall, work: (vdis: VdiClient, name: string, which: SnapshotName) => Promise<T>) =>
    withStore(ports, call, async (vdis) => {
      const { name, tag, snapId, snapshotAt } = await findVdi(vdis, call.operands[0]!, call.options.snapshot)
      return work(vdis, name, snapshotAt > 0 ? { tag, snapId } : {})
    })

  return [
    {
      name: 'vdi attr set',
      summary: 'Set an attribute of a VDI or of a snapshot.',
      operands: [NAME, KEY, { name: 'VALUE', meaning: 'If left out it comes from standard input.', optional: true }],
      options: [SNAPSHOT, { flag: 'exclusive', short: 'x', meaning: 'Only if there is none of that name yet.' }],
      run: async (call) => {
        const key = checkedKey(call.operands[1]!)
        const value = await givenValue(call)
        const exclusive = call.options.exclusive !== undefined
        await onVdi(call, async (vdis, name, snapshot) => {
          const setting = vdis.setAttribute(name, key, value, { exclusive, snapshot })
          await setting.catch((error: unknown) => {
            if (!isCode(error, 'VdiExists')) return about(name, Promise.reject(error))
            const problem = `"${name}" has an attribute "${key}" already; leave --exclusive out to replace it`
            throw new CommandFailure(EXIT.CANNOT_CREATE, problem, { cause: error })
          })
        })
        call.print({ key, value_bytes: value.length }, () => `Set "${key}" of "${call.operands[0]}".`)
        return EXIT.OK
      },
    },
    {
      name: 'vdi attr get',
      summary: 'Print the value of an attribute, as it is.',
      description: 'With --json the value is text, and `value_base64` has its bytes.',
      operands: [NAME, KEY],
      options: [SNAPSHOT],
      run: async (call) => {
        const key = checkedKey(call.operands[1]!)
        const value = await onVdi(call, (vdis, name, which) =>
          orNoAttribute(vdis, name, which, key, vdis.getAttribute(name, key, which)),
        )
        if (call.json) call.print({ key, value: value.toString(), value_base64: value.toString('base64') }, () => '')
        else await call.io.output(value)
        return EXIT.OK
      },
    },
    {
      name: 'vdi attr list',
      summary: 'List the attributes of a VDI or of a snapshot.',
      operands: [NAME],
      options: [SNAPSHOT],
      run: async (call) => {
        const attributes = await onVdi(call, (vdis, name, which) => about(name, vdis.listAttributes(name, which)))
        const rows = attributes
          .map(({ key, valueBytes, createdAt }) => ({
            key,
            value_bytes: valueBytes,
            created_at: formatTime(createdAt),
          }))
          .sort((a, b) => (a.key < b.key ? -1 : 1))
        call.print(rows, () =>
          table([
            ['KEY', 'BYTES', 'CREATED'],
            ...rows.map((row) => [row.key, String(row.value_bytes), row.created_at]),
          ]),
        )
        return EXIT.OK
      },
    },
    {
      name: 'vdi attr delete',
      summary: 'Delete an attribute.',
      operands: [NAME, KEY],
      options: [SNAPSHOT],
      run: async (call) => {
        const key = checkedKey(call.operands[1]!)
        await onVdi(call, (vdis, name, which) =>
          orNoAttribute(vdis, name, which, key, vdis.removeAttribute(name, key, which)),
        )
        call.print({ key }, () => `Deleted "${key}" of "${call.operands[0]}".`)
        return EXIT.OK
      },
    },
  ]
}

const checkedKey = (key: string): string => checkedText(key, 'KEY', VDI_ATTR_KEY_SIZE_BYTES)

async function givenValue({ operands, io }: CommandCall): Promise<Buffer> {
  const value = operands[2] === undefined ? await standardInput(io) : Buffer.from(operands[2])
  if (value.length <= VDI_ATTR_VALUE_SIZE_BYTES) return value
  throw new UsageError(`VALUE: has more than the ${VDI_ATTR_VALUE_SIZE_BYTES} bytes that an attribute can have`)
}

/** As far as it matters: what is too long is not read to its end. */
async function standardInput(io: CommandIo): Promise<Buffer> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of io.input()) {
    chunks.push(chunk)
    length += chunk.length
    if (length > VDI_ATTR_VALUE_SIZE_BYTES) break
  }
  return Buffer.concat(chunks)
}

async function orNoAttribute<T>(
  vdis: VdiClient,
  name: string,
  which: SnapshotName,
  key: string,
  work: Promise<T>,
): Promise<T> {
  try {
    return await about(name, work)
  } catch (error) {
    if (!isCode(error, 'NoObject')) throw error
    const keys = (await vdis.listAttributes(name, which)).map((attribute) => attribute.key)
    const near = nearest(key, keys)
    const advice =
      near === null ? `\`collie vdi attr list ${shellOperand(name)}\` shows what there is` : `did you mean "${near}"?`
    throw new CommandFailure(EXIT.NO_INPUT, `"${name}" has no attribute "${key}"; ${advice}`, { cause: error })
  }
}
