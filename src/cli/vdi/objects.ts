import type { ControlClient } from '../../control/client.ts'
import type { Result } from '../../control/methods.ts'
import { UsageError } from '../../errors.ts'
import { OBJECT_SIZE_BYTES } from '../../protocol/constants.ts'
import { type Command, type CommandCall, type CommandPorts, EXIT } from '../command.ts'
import { askNode } from '../node-access.ts'
import { parseBytes } from '../size.ts'
import { formatBytes, table } from '../table.ts'
import { formatVid } from './list.ts'
import { findVdi, labelOf, NAME, SNAPSHOT, withStore } from './store.ts'

const OBJECTS_PER_CALL = 1024

type VdiObject = Result<'vdi_objects'>['objects'][number]

/** The objects that a VDI is cut into. */
export function objectCommands(ports: CommandPorts): Command[] {
  return [
    {
      name: 'vdi object map',
      summary: 'List the objects of a VDI: which index is in which object, and how much of it is allocated.',
      description:
        'An object of another vid is shared with the snapshot it comes from. INHERITED is what an object takes from such a\n' +
        'one block by block. What is not listed was never written, or was given back, and reads as zeros.',
      operands: [NAME],
      options: [SNAPSHOT],
      run: async (call) => {
        const vdi = await withStore(ports, call, (vdis) => findVdi(vdis, call.operands[0]!, call.options.snapshot))
        const objects = await askNode(ports, call, (node) => allObjects(node, vdi.vid))
        call.print(objects, () => describe(objects))
        return EXIT.OK
      },
    },
    {
      name: 'vdi object location',
      summary: 'Say where one object of a VDI is: its id, and the nodes that have it.',
      operands: [NAME],
      options: [
        SNAPSHOT,
        {
          flag: 'index',
          short: 'i',
          value: 'NUMBER',
          meaning: `Which object, counted from 0 in ${formatBytes(OBJECT_SIZE_BYTES)}.`,
        },
        { flag: 'offset', value: 'OFFSET', meaning: 'The object that holds this byte, such as 1G.' },
      ],
      run: async (call) => {
        const vdi = await withStore(ports, call, (vdis) => findVdi(vdis, call.operands[0]!, call.options.snapshot))
        const index = givenIndex(call)
        const last = Math.ceil(vdi.sizeBytes / OBJECT_SIZE_BYTES) - 1
        if (index > last) throw new UsageError(`--index: "${labelOf(vdi)}" ends with object ${last}`)
        const location = await askNode(ports, call, (node) => locate(node, vdi.vid, index))
        call.print(location, () =>
          location.oid === null
            ? `Object ${index} of "${labelOf(vdi)}" is not there: it reads as zeros.`
            : table([
                ['object', location.oid],
                ['of vid', formatVid(location.vid!)],
                ['allocated', formatBytes(location.allocated_bytes)],
                ['nodes', location.nodes.join(', ')],
              ]),
        )
        return EXIT.OK
      },
    },
  ]
}

async function allObjects(node: ControlClient, vid: number): Promise<VdiObject[]> {
  const all: VdiObject[] = []
  for (;;) {
    const first = (all.at(-1)?.index ?? -1) + 1
    const { objects } = await node.call('vdi_objects', { vid, first_index: first, count: OBJECTS_PER_CALL })
    all.push(...objects)
    if (objects.length < OBJECTS_PER_CALL) return all
  }
}

async function locate(node: ControlClient, vid: number, index: number) {
  const [object] = (await node.call('vdi_objects', { vid, first_index: index, count: 1 })).objects
  if (object?.index !== index) return { index, oid: null, vid: null, allocated_bytes: 0, inherited_bytes: 0, nodes: [] }
  return object
}

function givenIndex({ options }: CommandCall): number {
  const { index, offset } = options
  if ((index === undefined) === (offset === undefined)) throw new UsageError('--index, --offset: give one of them')
  if (offset !== undefined) return Math.floor(parseBytes(offset, '--offset') / OBJECT_SIZE_BYTES)
  if (/^\d{1,9}$/.test(index!)) return Number(index)
  throw new UsageError(`--index: "${index}" is no number of an object`)
}

function describe(objects: readonly VdiObject[]): string {
  const rows = objects.map(({ index, oid, vid, allocated_bytes, inherited_bytes }) => [
    String(index),
    oid,
    formatVid(vid),
    formatBytes(allocated_bytes),
    formatBytes(inherited_bytes),
  ])
  return table([['INDEX', 'OBJECT', 'VID', 'ALLOCATED', 'INHERITED'], ...rows])
}
