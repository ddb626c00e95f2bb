import { rmSync } from 'node:fs'
import { expect, it } from 'vitest'
import { EXIT } from '../../src/cli/command.ts'
import { scratchDirectory } from '../tools/scratch.ts'
import { type Cloud, loseAndRestore } from './restore-from-nothing.ts'

it('brings volumes back from a directory, and says of another target what is wrong with it', async () => {
  const directory = scratchDirectory('collie-target-')
  try {
    await tellsWhatIsWrong(await loseAndRestore([`--backup-directory=${directory}`]))
  } finally {
    rmSync(directory, { recursive: true })
  }
})

async function tellsWhatIsWrong({ collie }: Cloud): Promise<void> {
  const flags = [
    '--backup-target=swift',
    '--backup-swift-auth=v1',
    '--backup-swift-auth-url=http://127.0.0.1:9/auth/v1.0',
  ]
  const { code, err } = await collie.command('backup', 'list', ...flags, '--backup-swift-password=hidden')
  expect(code).toBe(EXIT.UNAVAILABLE)
  expect(err).toMatch(
    /the backup target, Swift's login at http:\/\/127\.0\.0\.1:9\/auth\/v1\.0, is not available: .*ECONNREFUSED/,
  )
  expect(err).not.toContain('hidden')
  expect((await collie.command('backup', 'import')).code).toBe(EXIT.USAGE)
}
