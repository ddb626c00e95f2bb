import type { Result } from '../../control/methods.ts'
import { type Command, type CommandPorts, EXIT } from '../command.ts'
import { askNode } from '../node-access.ts'
import { formatBytes, table } from '../table.ts'
import { unknownVdi } from './store.ts'

type Vdi = Result<'vdi_list'>['vdis'][number]

export function listCommand(ports: CommandPorts): Command {
  return {
    name: 'vdi list',
    summary: 'List VDIs and their snapshots.',
    description:
      'STATE is `working` or `snapshot`, and says whether a VDI is incomplete (its import still runs or was killed), was taken\n' +
      'by an export (which still runs when it is open too, or was killed), is attached (a right to open it was given out),\n' +
      'locked by QEMU or tgt, or open now. CREATED is when a snapshot was taken.\n' +
      'ALLOCATED is the data that a VDI sees; UNIQUE the part that nobody else sees, which deleting it gives back; SHARED the rest.',
    operands: [
      { name: 'PATTERN', meaning: 'Only VDIs of this name; `*` stands for any letters, `?` for one.', repeated: true },
    ],
    run: async (call) => {
      const all: Vdi[] = (await askNode(ports, call, (node) => node.call('vdi_list', {}))).vdis
      const vdis = matching(all, call.operands).sort(byNameAndAge)
      const parents = new Map(all.map((vdi) => [vdi.vid, vdi]))
      call.print(vdis, () => listing(vdis, parents))
      return EXIT.OK
    },
  }
}

/** Those of the names that any pattern fits. Throws when one without wildcards is no VDI. */
function matching(vdis: readonly Vdi[], patterns: readonly string[]): Vdi[] {
  if (patterns.length === 0) return [...vdis]
  const names = new Set(vdis.map(({ name }) => name))
  const wanted = new Set<string>()
  for (const pattern of patterns) {
    if (!/[*?]/.test(pattern) && !names.has(pattern)) throw unknownVdi(pattern, names)
    const expression = wildcards(pattern)
    for (const name of names) if (expression.test(name)) wanted.add(name)
  }
  return vdis.filter(({ name }) => wanted.has(name))
}

function wildcards(pattern: string): RegExp {
  const source = pattern.replace(/[.*+?^${}()|[\]\\]/g, (letter) => ({ '*': '.*', '?': '.' })[letter] ?? `\\${letter}`)
  return new RegExp(`^${source}$`, 'su')
}

function byNameAndAge(a: Vdi, b: Vdi): number {
  if (a.name !== b.name) return a.name < b.name ? -1 : 1
  return a.snap_id - b.snap_id || Number(b.is_snapshot) - Number(a.is_snapshot)
}

function listing(vdis: readonly Vdi[], byVid: ReadonlyMap<number, Vdi>): string {
  const rows = vdis.map((vdi) => ({
    NAME: vdi.name,
    TAG: vdi.tag,
    ID: String(vdi.snap_id),
    VID: formatVid(vdi.vid),
    SIZE: formatBytes(vdi.size_bytes),
    ALLOCATED: formatBytes(vdi.allocated_bytes),
    UNIQUE: `${vdi.is_exact ? '' : '≤ '}${formatBytes(vdi.unique_bytes)}`,
    SHARED: formatBytes(vdi.shared_bytes),
    COPIES: String(vdi.copies),
    STATE: stateOf(vdi),
    PARENT: vdi.parent_vid === 0 ? '' : parentLabel(vdi, byVid),
    CREATED: vdi.snapshot_at ?? vdi.created_at,
  }))
  return table([COLUMNS, ...rows.map((row) => COLUMNS.map((column) => row[column]))])
}

const COLUMNS = [
  'NAME',
  'TAG',
  'ID',
  'VID',
  'SIZE',
  'ALLOCATED',
  'UNIQUE',
  'SHARED',
  'COPIES',
  'STATE',
  'PARENT',
  'CREATED',
] as const

export const formatVid = (vid: number): string => vid.toString(16).padStart(6, '0')

function parentLabel({ parent_vid }: Vdi, byVid: ReadonlyMap<number, Vdi>): string {
  const parent = byVid.get(parent_vid)
  if (!parent) return `(deleted ${formatVid(parent_vid)})`
  return `${parent.name}@${parent.tag || `#${parent.snap_id}`}`
}

function stateOf(vdi: Vdi): string {
  return [
    vdi.is_snapshot ? 'snapshot' : 'working',
    ...(vdi.is_incomplete ? ['incomplete'] : []),
    ...(vdi.is_for_export ? ['export'] : []),
    ...(vdi.attachments > 0 ? ['attached'] : []),
    ...(vdi.is_locked ? ['locked'] : []),
    ...(vdi.is_open ? ['open'] : []),
  ].join(', ')
}
