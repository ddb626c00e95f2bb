import { compareGenerations, type Generation, type Version } from './version.ts'

/** A place says which generation in a byte. */
const GENERATIONS_MAX = 255
/** The place of what has no version. */
export const NO_VERSION = 0

/**
 * The versions of many copies, without an object for each: they are of few generations. One of more generations than there is room for
 * counts as none, as does any that was never set.
 */
export class VersionArray {
  readonly generations: Generation[] = []
  /** Of each copy 1 + which of the generations it is, or NO_VERSION. */
  readonly places: Uint8Array
  readonly sequences: Float64Array

  constructor(length: number) {
    this.places = new Uint8Array(length)
    this.sequences = new Float64Array(length)
  }

  get length(): number {
    return this.places.length
  }

  at(index: number): Version | null {
    const generation = this.generations[this.places[index]! - 1]
    return generation ? { generation, sequence: this.sequences[index]! } : null
  }

  set(index: number, version: Version | null): void {
    const place = version ? this.placeOf(version.generation) : NO_VERSION
    this.places[index] = place
    this.sequences[index] = version && place !== NO_VERSION ? version.sequence : 0
  }

  /** NO_VERSION when there is no room for one more. */
  placeOf(generation: Generation): number {
    const { generations } = this
    const known = generations.findIndex((each) => each === generation || compareGenerations(each, generation) === 0)
    if (known >= 0) return known + 1
    return generations.length < GENERATIONS_MAX ? generations.push(generation) : NO_VERSION
  }
}
