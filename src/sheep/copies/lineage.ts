import { type Blocks, toBlocks } from './block-ranges.ts'
import type { BlockRange } from './copy-store.ts'
import type { OpenedCopy } from './messages.ts'
import { formatVersion, isSameVersion, type Version } from './version.ts'

/**
 * The blocks in which two copies can differ, when their tails show a version that both once had: what either wrote since, and nothing
 * else of the same epoch. Null when they do not show one.
 */
export function writtenApart(a: OpenedCopy, b: OpenedCopy): Blocks | null {
  const statesOfB = statesOf(b)
  for (const [version, since] of statesOf(a)) {
    const other = statesOfB.get(version)
    if (other) return toBlocks([...since, ...other])
  }
  return null
}

interface Step {
  version: Version
  previous: Version | null
  blocks: BlockRange[]
  /** Blocks that were put in after an adoption are in no tail: what the copy was before it says nothing of them. */
  isAdoption: boolean
}

/** The versions that a copy is sure to have had, the last one first, with the blocks that it wrote since. */
function statesOf({ state, tail }: OpenedCopy): Map<string, readonly BlockRange[]> {
  const states = new Map<string, readonly BlockRange[]>()
  if (!state) return states
  let version: Version | null = state.version
  let since: readonly BlockRange[] = []
  for (const step of stepsOf(tail).reverse()) {
    states.set(formatVersion(version), since)
    // What went before may have been forgotten between them.
    if (step.isAdoption || !isSameVersion(step.version, version)) return states
    version = step.previous
    if (version === null) return states
    since = [...since, ...step.blocks]
  }
  return states.set(formatVersion(version), since)
}

function stepsOf(tail: OpenedCopy['tail']): Step[] {
  const steps: Step[] = []
  for (const { version, previous, first, count } of tail) {
    let step = steps.at(-1)
    if (!step || !isSameVersion(step.version, version)) {
      step = { version, previous, blocks: [], isAdoption: false }
      steps.push(step)
    }
    if (count === 0) step.isAdoption = true
    else step.blocks.push({ first, count })
  }
  return steps
}
