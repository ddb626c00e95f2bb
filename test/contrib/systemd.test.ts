import { readFileSync } from 'node:fs'
import { expect } from 'vitest'
import { requireCommand } from '../tools/require-command.ts'
import { runCommand } from '../tools/run-command.ts'

const UNIT = new URL('../../contrib/collie.service', import.meta.url).pathname

requireCommand('systemd-analyze', 'systemd')(
  'the unit is one that systemd takes, and keeps to itself what it need not have',
  async () => {
    expect(await runCommand(['systemd-analyze', 'verify', UNIT])).toBe('')
    const exposure = await runCommand(['systemd-analyze', 'security', '--offline=true', '--threshold=25', UNIT])
    expect(exposure).toContain('Overall exposure level')
    // What it must not be denied: see the comments there.
    const denied = /^(MemoryDenyWriteExecute|RestrictSUIDSGID|ProcSubset|PrivateNetwork)=/m
    expect(readFileSync(UNIT, 'utf8')).not.toMatch(denied)
  },
)
