import { type Command, CommandFailure, type CommandPorts, EXIT } from '../command.ts'
import { table } from '../table.ts'
import { about, checkedName, noVdi, withStore } from './store.ts'

/** The locks that QEMU and tgt take on names of VDIs. */
export function lockCommands(ports: CommandPorts): Command[] {
  return [
    {
      name: 'vdi lock list',
      summary: 'List which VDIs QEMU and tgt have locked.',
      run: async (call) => {
        const locks = await withStore(ports, call, (vdis) => vdis.listLocks())
        call.print(locks, () =>
          table([
            ['NAME', 'KIND', 'HOSTS'],
            ...locks.map(({ name, shared, hosts }) => [name, shared ? 'shared' : 'exclusive', hosts.join(', ')]),
          ]),
        )
        return EXIT.OK
      },
    },
    {
      name: 'vdi lock unlock',
      summary: 'End the lock on a VDI whose holder is gone or is to be cut off.',
      description:
        'A lock ends by itself some time after the connections of its holder. When this command returns, nothing that was\n' +
        'sent under the lock changes the VDI any more.',
      operands: [{ name: 'NAME', meaning: 'Name of the VDI.' }],
      run: async (call) => {
        const name = checkedName(call.operands[0]!, 'NAME')
        await withStore(ports, call, async (vdis) => {
          if ((await vdis.listLocks()).some((lock) => lock.name === name)) await about(name, vdis.unlock(name))
          else if ((await vdis.listOf(name)).length === 0) throw await noVdi(vdis, name)
          else
            throw new CommandFailure(EXIT.NO_INPUT, `"${name}" is not locked; \`collie vdi lock list\` shows what is`)
        })
        call.print({ name, is_locked: false }, () => `"${name}" is not locked any more.`)
        return EXIT.OK
      },
    },
  ]
}
