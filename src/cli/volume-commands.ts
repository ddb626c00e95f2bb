import type { Result } from '../control/methods.ts'
import { type Command, type CommandCall, CommandFailure, type CommandPorts, EXIT } from './command.ts'
import { askApi } from './node-access.ts'
import { table } from './table.ts'
import { type Explanation, tellStory } from './volume-story.ts'

type Volume = Result<'volume_list'>['volumes'][number]

const PAGE_VOLUMES = 1000

/** What the block storage API keeps, as operators see it: of all projects. */
export function volumeCommands(ports: CommandPorts): Command[] {
  return [
    {
      name: 'volume list',
      summary: 'List the volumes of the block storage API, of all projects, oldest first.',
      options: [
        { flag: 'status', value: 'STATUS', meaning: 'Only those with this status: error_extending, for one.' },
        { flag: 'project', value: 'ID', meaning: 'Only those of this project.' },
      ],
      run: async (call) => {
        const volumes = await listAll(ports, call)
        call.print(volumes, () => listVolumes(volumes))
        return EXIT.OK
      },
    },
    explainCommand(ports, 'volume'),
    explainCommand(ports, 'snapshot'),
    explainCommand(ports, 'group'),
  ]
}

type Explained = 'volume' | 'snapshot' | 'group'

const KINDS: Readonly<Record<Explained, readonly Explanation['kind'][]>> = {
  volume: ['volume', 'attachment'],
  snapshot: ['snapshot'],
  group: ['group', 'group snapshot'],
}

const ALSO: Readonly<Record<Explained, string>> = {
  volume: ', or of an attachment',
  snapshot: '',
  group: ', or of a snapshot of one',
}

function explainCommand(ports: CommandPorts, kind: Explained): Command {
  return {
    name: `${kind} explain`,
    summary: `Say why a ${kind} is in the state it is in, what is done about it, and what can be done.`,
    operands: [{ name: 'ID', meaning: `The id of the ${kind}${ALSO[kind]}.` }],
    run: async (call) => {
      const id = call.operands[0]!
      const { explanation } = await askApi(ports, call, (api) => api.call('explain', { id }))
      if (explanation === null || !fits(explanation, kind)) {
        throw new CommandFailure(
          EXIT.NO_INPUT,
          `there is no ${kind} ${id}; ${kind === 'group' ? '`cinder group-list` lists the groups' : '`collie volume list` lists the volumes'}`,
        )
      }
      call.print(explanation, () => tellStory(explanation, ports.clock.now()))
      return EXIT.OK
    },
  }
}

function fits(explanation: Explanation, kind: Explained): boolean {
  return KINDS[kind].includes(explanation.kind)
}

async function listAll(ports: CommandPorts, call: CommandCall): Promise<Volume[]> {
  const { status = null, project = null } = call.options
  return askApi(ports, call, async (api) => {
    const all: Volume[] = []
    for (;;) {
      const after = all.at(-1)?.id ?? null
      const { volumes } = await api.call('volume_list', { after, limit: PAGE_VOLUMES, status, project_id: project })
      all.push(...volumes)
      if (volumes.length < PAGE_VOLUMES) return all
    }
  })
}

function listVolumes(volumes: readonly Volume[]): string {
  if (volumes.length === 0) return 'There are no volumes.'
  return table([
    ['ID', 'STATUS', 'GIB', 'PROJECT', 'HOST', 'NAME'],
    ...volumes.map((volume) => [
      volume.id,
      volume.status,
      String(volume.size_gib),
      volume.project_id,
      volume.host ?? '-',
      volume.name ?? '',
    ]),
  ])
}
