import { VERSION } from '../version.ts'
import { type Command, EXIT } from './command.ts'

export const version: Command = {
  name: 'version',
  summary: 'Print the version.',
  run: async ({ print }) => {
    print({ version: VERSION }, () => `collie ${VERSION}`)
    return EXIT.OK
  },
}
