import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** What takes longest, by the paths of the files: begun last, it would run on alone. */
const LONGEST = [
  'services/crash',
  'services/property',
  'e2e/',
  'services/broken-commits',
  'sheep/cluster/',
  'sheep/engine-rules',
  'sheep/object-store',
  'api/clients',
  'cli/main',
  'sheep/copies/',
  'db/indices',
  'sheep/placed-disks',
  'sheep/disks',
  'services/processes',
  'sheep/replicated/',
  'sheep/clustered/',
  'sheep/membership/',
  'api/robustness',
]

/**
 * Orders files by the list above, and those that it has not after them, the largest first. Files that share processes come
 * after those that have one each: a process is kept for the next file only if that one shares it.
 */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const turn = ({ moduleId }: TestSpecification) => {
      const index = LONGEST.findIndex((part) => moduleId.includes(`/test/${part}`))
      return index === -1 ? LONGEST.length : index
    }
    const isShared = ({ project }: TestSpecification) => Number(!project.config.isolate)
    return (await super.sort(files)).sort((a, b) => isShared(a) - isShared(b) || turn(a) - turn(b))
  }
}
