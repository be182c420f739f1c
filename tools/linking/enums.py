"""Words that people use for the fixed values of arguments, beside the values themselves."""

import re

from rapidfuzz import fuzz, process

_SAME: dict[str, dict[str, str]] = {
    "status": {
        "pending": "waiting queued queue pd 대기 대기중 기다리는 펜딩 held 보류",
        "running": "run live active r 실행 실행중 도는 돌고있는 러닝",
        "scheduled": "placed 배정 예약", "preparing": "starting pulling 준비 준비중",
        "terminating": "stopping ending 종료중",
        "terminated": "finished done completed ended exited 종료 완료 끝난 종료된",
        "error": "failed failure errored crashed f 실패 오류 에러 실패한",
        "cancelled": "canceled ca 취소 취소된", "alive": "up healthy ok ready online idle 정상 살아있는",
        "lost": "down dead offline unreachable gone 죽은 유실",
        "cordoned": "unschedulable schedulingdisabled blocked closed fenced 격리 막힌 코든",
        "draining": "drain drained drng 드레인 비우는중",
    },
    "type": {
        "interactive": "notebook jupyter shell 대화형 인터랙티브 노트북", "batch": "job script 배치 일괄",
        "inference": "serving service 추론 서빙",
        "system": "시스템",
    },
    "order": {
        "asc": "ascending lowest smallest oldest up least 오름차순 낮은순 작은순 오래된순",
        "desc": "descending highest largest newest down most 내림차순 높은순 큰순 최신순",
    },
    "sort_by": {
        "created": "newest oldest age time 생성 생성순 최신순", "waiting": "wait longest waited 대기 대기시간",
        "gpu": "gpus 지피유", "cpu": "cpus cores 코어",
        "memory": "ram mem 메모리", "priority": "우선순위",
        "gpu_utilization": "utilization util usage use load 사용률 이용률", "name": "이름 이름순 alphabetical",
        "free_gpu": "free available gpufree 여유 빈 남은", "temperature": "temp hot hottest 온도",
        "power": "watts 전력", "size": "bytes big 크기 용량",
        "modified": "changed mtime updated 수정 수정일",
    },
    "role": {
        "user": "member 사용자 일반",
        "project_admin": "projectadmin lead owner manager 프로젝트관리자",
        "admin": "administrator root superuser 관리자",
    },
    "goal": {
        "train": "training pretrain pretraining learn teach 학습 훈련 트레이닝 사전학습 가르치는 학습시키는",
        "serve": "serving inference infer host deploy run 서빙 서비스 추론 인퍼런스 배포 운영",
    },
    "severity": {
        "info": "information 정보",
        "warning": "warn warnings 경고",
        "error": "errors err critical fatal 오류 에러",
    },
}  # fmt: skip
_TRUE = {"true", "yes", "y", "on", "1", "네", "예", "응", "true로", "그래", "맞아"}
_FALSE = {"false", "no", "n", "off", "0", "아니", "아니오", "아니요"}


def _key(text: str) -> str:
    return re.sub(r"[\s_\-]+", "", text.casefold())


def read_choice(argument: str, said: str, choices: tuple[str, ...]) -> str | None:
    """The one of `choices` that `said` means; None when it is none of them."""
    key = _key(said)
    for choice in choices:
        if key == _key(choice) or key in map(_key, _SAME.get(argument, {}).get(choice, "").split()):
            return choice
    found = process.extractOne(key, choices, processor=_key, scorer=fuzz.ratio, score_cutoff=80)
    return found[0] if found else None


def read_bool(said: str) -> bool | None:
    """Yes or no, in either language."""
    key = _key(said)
    return True if key in _TRUE else False if key in _FALSE else None
