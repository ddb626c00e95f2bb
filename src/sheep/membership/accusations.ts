import type { NodeId } from '../order/item.ts'
import type { View } from './view.ts'

/**
 * Who is to be put out, so that all that stay reach each other. Somebody who does not reach another one cannot tell which of the two
 * is to blame: so it is who has most against him. Who accuses everybody, and is accused by them, goes himself.
 *
 * @param accusations by accuser; who is no member may accuse, and counts for little
 */
export function whoIsToBlame(view: View, accusations: ReadonlyMap<NodeId, readonly NodeId[]>): NodeId[] {
  const members = new Set(view.members.map(({ node }) => node))
  let broken = [...accusations].flatMap(([accuser, accused]) =>
    accused.filter((node) => node !== accuser && members.has(node)).map((node) => ({ accuser, accused: node })),
  )
  const out: NodeId[] = []
  while (broken.length > 0) {
    const worst = [...new Set(broken.flatMap(({ accuser, accused }) => [accuser, accused]))]
      .map((node) => ({ node, blame: blameOf(node, broken, view) }))
      .sort((a, b) => compareBlame(b.blame, a.blame) || (a.node < b.node ? 1 : -1))[0]!.node
    broken = broken.filter(({ accuser, accused }) => accuser !== worst && accused !== worst)
    if (members.has(worst)) out.push(worst)
  }
  return out
}

type Broken = { accuser: NodeId; accused: NodeId }

/** To be compared part by part: broken links, then whether it is no member, whether it is accused, whether it does not vote. */
function blameOf(node: NodeId, broken: readonly Broken[], view: View): readonly number[] {
  const others = new Set(
    broken.flatMap(({ accuser, accused }) => (accuser === node ? [accused] : accused === node ? [accuser] : [])),
  )
  const isOutside = !view.members.some((member) => member.node === node)
  const accusers = broken.filter(({ accused }) => accused === node).length
  return [others.size, Number(isOutside), accusers, Number(!view.voters.includes(node))]
}

function compareBlame(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((part, index) => part !== b[index])
  return at < 0 ? 0 : a[at]! - b[at]!
}
