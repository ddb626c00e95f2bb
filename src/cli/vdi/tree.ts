import { formatTime } from '../../runtime/clock.ts'
import type { VdiInfo } from '../../vdi/client.ts'
import { type Command, type CommandPorts, EXIT } from '../command.ts'
import { formatBytes, visible } from '../table.ts'
import { checkedName, noVdi, withStore } from './store.ts'

interface Node {
  vdi: VdiInfo
  children: Node[]
}

export function treeCommand(ports: CommandPorts): Command {
  return {
    name: 'vdi tree',
    summary: 'Draw which snapshots and clones come from which.',
    description: 'What goes on being written is marked (current). A VDI whose parent was deleted stands at the left.',
    operands: [{ name: 'NAME', meaning: 'Only the trees with VDIs of this name.', optional: true }],
    run: async (call) => {
      const [name] = call.operands
      const trees = await withStore(ports, call, async (vdis) => {
        const all = forest(await vdis.list())
        if (name === undefined) return all
        checkedName(name, 'NAME')
        const wanted = all.filter((root) => contains(root, name))
        if (wanted.length === 0) throw await noVdi(vdis, name)
        return wanted
      })
      call.print(trees.map(toJson), () => trees.flatMap((root) => drawn(root)).join('\n'))
      return EXIT.OK
    },
  }
}

function forest(vdis: readonly VdiInfo[]): Node[] {
  const nodes = new Map(vdis.map((vdi) => [vdi.vid, { vdi, children: [] as Node[] }]))
  const roots: Node[] = []
  const inOrder = [...nodes.values()].sort((a, b) => a.vdi.createdAt - b.vdi.createdAt || a.vdi.snapId - b.vdi.snapId)
  for (const node of inOrder) (nodes.get(node.vdi.parentVid)?.children ?? roots).push(node)
  return roots.sort((a, b) => (a.vdi.name < b.vdi.name ? -1 : Number(a.vdi.name > b.vdi.name)))
}

/** Without recursion, as everything here: a VDI may have thousands of snapshots, each the child of the one before. */
function* preOrder(root: Node): Generator<Node> {
  const waiting = [root]
  for (let node = waiting.pop(); node; node = waiting.pop()) {
    yield node
    waiting.push(...[...node.children].reverse())
  }
}

function contains(root: Node, name: string): boolean {
  for (const { vdi } of preOrder(root)) if (vdi.name === name) return true
  return false
}

/**
 * The lines of one tree. The snapshots of a VDI stand below each other at one depth, since each is the parent of the next;
 * what else comes from one is drawn as its branch.
 */
function drawn(root: Node): string[] {
  const lines: string[] = []
  const waiting: { node: Node; first: string; rest: string }[] = [{ node: root, first: '', rest: '' }]
  for (let line = waiting.pop(); line; line = waiting.pop()) {
    const { node, first, rest } = line
    lines.push(first + visible(label(node.vdi)))
    const trunk = node.children.find(({ vdi }) => vdi.name === node.vdi.name)
    const branches = node.children.filter((child) => child !== trunk)
    const below = branches.map((child, i) => {
      const isLast = i === branches.length - 1 && trunk === undefined
      return { node: child, first: `${rest}${isLast ? '└─ ' : '├─ '}`, rest: `${rest}${isLast ? '   ' : '│  '}` }
    })
    if (trunk) waiting.push({ node: trunk, first: rest, rest })
    waiting.push(...below.reverse())
  }
  return lines
}

function label(vdi: VdiInfo): string {
  const size = formatBytes(vdi.sizeBytes)
  if (vdi.snapshotAt === 0) return `${vdi.name}  ${size}  (current)`
  const tag = vdi.tag === '' ? '' : ` ${vdi.tag}`
  return `${vdi.name} #${vdi.snapId}${tag}  ${size}  ${formatTime(vdi.snapshotAt)}`
}

interface JsonNode {
  name: string
  tag: string
  snap_id: number
  vid: number
  current: boolean
  size_bytes: number
  created_at: string
  snapshot_at: string | null
  children: JsonNode[]
}

function toJson(root: Node): JsonNode {
  const made = new Map<Node, JsonNode>()
  for (const node of [...preOrder(root)].reverse()) {
    const { vdi, children } = node
    made.set(node, {
      name: vdi.name,
      tag: vdi.tag,
      snap_id: vdi.snapId,
      vid: vdi.vid,
      current: vdi.snapshotAt === 0,
      size_bytes: vdi.sizeBytes,
      created_at: formatTime(vdi.createdAt),
      snapshot_at: vdi.snapshotAt === 0 ? null : formatTime(vdi.snapshotAt),
      children: children.map((child) => made.get(child)!),
    })
  }
  return made.get(root)!
}
