import { vi } from 'vitest'
import { readOpenrc } from '../tools/cinder-api.ts'
import { requireCommand } from '../tools/require-command.ts'
import { runCommand } from '../tools/run-command.ts'
import { moveInUse } from './online-migration.ts'

vi.setConfig({ testTimeout: 300_000 }) // clients are slow to begin

requireCommand('cinder', 'python3-cinderclient')('cinder moves a volume in use to another store', () =>
  moveInUse((cinder, openrc) => ({
    retype: async (id, type) => {
      const policy = ['--migration-policy', 'on-demand']
      if (type === 'on-other') await runCommand(['cinder', 'retype', ...policy, id, type], { env: readOpenrc(openrc) })
      else await cinder.request('POST', `/volumes/${id}/action`, { 'os-retype': { new_type: type } })
    },
    migrate: async (id, host) => {
      await cinder.request('POST', `/volumes/${id}/action`, { 'os-migrate_volume': { host } })
    },
  })),
)
