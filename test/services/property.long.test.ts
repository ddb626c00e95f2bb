import { describeProperties } from './properties.ts'

describeProperties({ SQLite: 300, PostgreSQL: 60 })
