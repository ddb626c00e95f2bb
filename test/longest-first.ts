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

/** Orders files by the list above, and those that it has not after them, the largest first. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const turn = ({ moduleId }: TestSpecification) => {
      const index = LONGEST.findIndex((part) => moduleId.includes(`/test/${part}`))
      return index === -1 ? LONGEST.length : index
    }
    return (await super.sort(files)).sort((a, b) => turn(a) - turn(b))
  }
}
