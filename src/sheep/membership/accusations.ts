import type { NodeId } from '../order/item.ts'
import type { View } from './view.ts'
import { spareVoters } from './voters.ts'

/** What one node has against members. */
export interface Accusations {
  /** It does not hear them any more. */
  silent: readonly NodeId[]
  /** It hears them, and requests to them were lost. */
  lost: readonly NodeId[]
}

export interface Judgement {
  /** Who should go, so that all that stay reach each other. */
  blamed: ReadonlySet<NodeId>
  /** As many of these as can go: that less than a majority is left helps nobody. */
  mayGo: readonly NodeId[]
  /** Another view of the same members helps: in that no request has been lost yet. */
  renews: boolean
}

/**
 * @param accusations by accuser; of one who is there twice the last ones count
 * @param wasInVain there has just been another view of the same members: what is lost in that too does not arrive
 */
export function judge(
  view: View,
  present: readonly NodeId[],
  accusations: readonly (readonly [NodeId, Accusations])[],
  wasInVain: boolean,
): Judgement {
  const byAccuser = new Map(accusations)
  const isMember = (node: NodeId) => view.members.some((member) => member.node === node)
  const isAny = (of: (one: Accusations) => readonly NodeId[]) =>
    [...byAccuser.values()].some((one) => of(one).some(isMember))
  const [isSilent, isLost] = [isAny(({ silent }) => silent), isAny(({ lost }) => lost)]
  const counted = (one: Accusations) => (isSilent || wasInVain ? [...one.silent, ...one.lost] : one.silent)
  const blamed = new Set(whoIsToBlame(view, new Map([...byAccuser].map(([node, one]) => [node, counted(one)]))))
  const rest = new Set([...present, ...view.members.map(({ node }) => node)])
  const mayGo = [...blamed].filter((node) => {
    const without = new Set([...rest].filter((one) => one !== node))
    if (spareVoters(view.voters, without) < 0) return false
    rest.delete(node)
    return true
  })
  return { blamed, mayGo, renews: isLost && !isSilent && mayGo.length === 0 }
}

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
