import type { PoolStats, VolumeCopies } from '../drivers/driver.ts'

/** On how many nodes of its backend a volume of the type is, and how many of these at least have what is acknowledged. */
export const COPIES_SPEC = 'sheepdog:copies'
export const COPIES_MIN_SPEC = 'sheepdog:copies_min'

export const isOfCopies = (key: string): boolean => key === COPIES_SPEC || key === COPIES_MIN_SPEC

/** What the protocol of the store has room for. */
const COPIES_MAX = 31

/** Factors are quotients of bytes, and 3 GiB times 2/3 are not to be 3 whole ones. */
const ROUNDING_GIB = 0.001

type ExtraSpecs = Readonly<Record<string, string>>

/** What extra specs say of copies; null when they leave it to the backend, or say what `refuseCopies` would refuse. */
export function copiesOf(extraSpecs: ExtraSpecs): VolumeCopies | null {
  const read = readCopies(extraSpecs)
  return typeof read === 'string' ? null : read
}

/** Why extra specs mean no number of copies, with the key, or null. */
export function refuseCopies(extraSpecs: ExtraSpecs): string | null {
  const read = readCopies(extraSpecs)
  return typeof read === 'string' ? read : null
}

function readCopies(extraSpecs: ExtraSpecs): VolumeCopies | null | string {
  const { [COPIES_SPEC]: copiesText, [COPIES_MIN_SPEC]: copiesMinText } = extraSpecs
  if (copiesText === undefined) {
    return copiesMinText === undefined ? null : `the extra spec ${COPIES_MIN_SPEC} says nothing without ${COPIES_SPEC}`
  }
  const copies = numberIn(copiesText, COPIES_MAX)
  if (copies === null)
    return `the extra spec ${COPIES_SPEC} is '${copiesText}', and not a number from 1 to ${COPIES_MAX}`
  if (copiesMinText === undefined) return { copies }
  const copiesMin = numberIn(copiesMinText, copies)
  if (copiesMin !== null) return { copies, copiesMin }
  return `the extra spec ${COPIES_MIN_SPEC} is '${copiesMinText}', and not a number from 1 to ${copies}, which ${COPIES_SPEC} is`
}

function numberIn(text: string, most: number): number | null {
  const number = /^\d{1,2}$/.test(text.trim()) ? Number(text) : 0
  return number >= 1 && number <= most ? number : null
}

/** Whether two types mean the same copies, as far as a backend is told. */
export function sameCopies(one: ExtraSpecs, other: ExtraSpecs): boolean {
  const [a, b] = [copiesOf(one), copiesOf(other)]
  return a?.copies === b?.copies && a?.copiesMin === b?.copiesMin
}

/**
 * Whole GiB of a pool's capacity that a volume takes there, as the pool tells its capacity. Of more copies than there may be now it counts
 * what so many take: it has them, and some of the nodes are gone.
 */
export function takenGib(
  { sizeFactors }: Pick<PoolStats, 'sizeFactors'>,
  sizeGib: number,
  extraSpecs: ExtraSpecs,
): number {
  const copies = copiesOf(extraSpecs)?.copies
  if (copies === undefined) return sizeGib
  const factor = sizeFactors[copies - 1] ?? sizeFactors.at(-1) ?? 1
  return Math.ceil(sizeGib * factor - ROUNDING_GIB)
}
